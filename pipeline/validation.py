"""What a training is judged by while it runs: average precision, or the teacher's loss where nothing is annotated."""

from collections.abc import Mapping, Sequence

import torch

from data.annotations import AnnotationSet
from data.augment import AugmentConfig
from data.errors import RequestError
from data.picture_cache import PictureCache
from data.views import Resize
from pipeline.evaluate import EvaluationPicture, evaluate
from pipeline.keeper import Validator
from stages.bench.detect import Predictor
from stages.device import Precision, autocast
from stages.networks.network import Detector
from stages.student.loader import stream_batches
from stages.student.objective import ObjectiveConfig, objective
from stages.student.order import whole_batches
from stages.student.samples import SampleSettings, TrainingPicture

NO_AUGMENTATION = AugmentConfig(geometric=False, flip=0.0, photometric=False)


def accuracy_validator(
    pictures: Sequence[EvaluationPicture],
    annotations: AnnotationSet,
    *,
    input_size: int,
    resize: Resize,
    device: torch.device,
    precision: Precision,
    batch_size: int,
    threads: int,
    cache: PictureCache,
) -> Validator:
    """VOC07 11-point AP50 on annotated pictures, and the all-point one beside it."""

    def measure(detector: Detector) -> dict[str, float]:
        predictor = Predictor(
            detector, height=input_size, width=input_size, resize=resize, device=device, precision=precision
        )
        result = evaluate(
            predictor, pictures, annotations, batch_size=batch_size, threads=threads, with_coco=False, cache=cache
        )
        if result.voc.map_11_point is None or result.voc.map_all_point is None:
            raise RequestError("no picture of the validation list holds an object that counts; give another --val-list")
        return {
            "validation/ap50_voc07": result.voc.map_11_point,
            "validation/ap50_all_point": result.voc.map_all_point,
        }

    return Validator("VOC07 AP50", measure, lambda measures: measures["validation/ap50_voc07"])


def teacher_validator(
    pictures: Sequence[TrainingPicture],
    samples: SampleSettings,
    losses: ObjectiveConfig,
    *,
    input_size: int,
    device: torch.device,
    precision: Precision,
    batch_size: int,
    threads: int,
    cache: PictureCache,
) -> Validator:
    """The distillation loss on held-out pictures of the store, unaugmented."""
    plain = SampleSettings(samples.anchors, samples.classes, samples.resize, NO_AUGMENTATION, samples.seed)

    @torch.no_grad()
    def measure(detector: Detector) -> dict[str, float]:
        anchors_A2 = torch.tensor(detector.anchors, device=device)
        training = detector.training
        detector.eval()
        total = 0.0
        for batch in stream_batches(
            pictures,
            whole_batches(len(pictures), batch_size),
            plain,
            cache,
            epoch=0,
            first=0,
            input_size=input_size,
            multi_scale=False,
            teachers=max(stored.teacher + 1 for item in pictures for stored in item.stored),
            threads=threads,
        ):
            placed = batch.on(device, torch.channels_last)
            with autocast(device, precision):
                raw_BCHW = detector(placed.pictures_B3HW)
            _, terms = objective(raw_BCHW, placed, anchors_A2, losses, prior_box=False)
            of_teacher = [value for name, value in terms.items() if name.startswith("distillation/")]
            total += sum(float(value) for value in of_teacher) * len(batch.labelled_B)
        detector.train(training)
        return {"validation/teacher_loss": total / len(pictures)}

    def score(measures: Mapping[str, float]) -> float:
        return -measures["validation/teacher_loss"]

    return Validator("held-out teacher loss", measure, score)
