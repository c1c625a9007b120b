"""`distill train` from its request to its result."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from data.augment import AugmentConfig
from data.errors import RequestError
from data.images import RejectedPictureError, read_picture
from data.picture_cache import PictureCache
from data.prefetch import map_ahead
from data.store.reader import LabelStore
from data.views import Resize, resize_view
from pipeline.fit import FitSettings, Validator, fit
from pipeline.input_size import check_input_size
from pipeline.interrupt import stop_on_warning
from pipeline.progress import show_progress
from pipeline.run_folder import RunFolder
from pipeline.train_request import TrainRequest, parse_anchors
from pipeline.training_set import TrainingSet, build_training_set, open_stores
from pipeline.validation import accuracy_validator, teacher_validator
from stages.device import Precision, resolve_device, resolve_precision
from stages.networks.anchors import kmeans_anchors
from stages.networks.f_yolo import FYoloConfig
from stages.networks.from_cfg import load_prefix
from stages.networks.network import Detector
from stages.networks.spec import Anchors, DetectorSpec, ModelConfig, build_detector, default_anchors, save_detector
from stages.networks.tiny_yolo import TinyYoloConfig
from stages.networks.yolov2 import YoloV2Config
from stages.student.distillation_loss import DistillationConfig
from stages.student.objective import ObjectiveConfig
from stages.student.order import batches_per_epoch
from stages.student.place_truth import place_truth
from stages.student.samples import SampleSettings, TrainingPicture
from stages.student.trainer import OptimiserConfig, Trainer

DEFAULT_INPUT = 416
VALIDATIONS = 20
VALIDATION_BATCH = 16


@dataclass(frozen=True, slots=True)
class Resolved:
    """What `auto` and None of a request came to; recorded in run.json and used again on resume."""

    spec: DetectorSpec
    input_size: int
    resize: Resize
    precision: Precision
    threads: int

    def to_json(self) -> dict[str, Any]:
        return {
            "detector": self.spec.to_json(),
            "input_size": self.input_size,
            "resize": self.resize,
            "precision": self.precision,
            "threads": self.threads,
        }

    @classmethod
    def from_json(cls, value: Any) -> "Resolved":
        """The inverse of `to_json`; RequestError for anything else."""
        try:
            return cls(
                DetectorSpec.from_json(value["detector"]),
                int(value["input_size"]),
                value["resize"],
                value["precision"],
                int(value["threads"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise RequestError(f"run.json does not say how the run was begun ({error}); begin a new run") from error


def run_training(request: TrainRequest, path: Path, *, resume: bool) -> dict[str, Any]:
    """Train as asked, into the run folder `path`; returns what came out, with a "text" for people.

    Raises RequestError before anything is written where the request can't be served, WorkLeftError where the training
    stopped before its end.
    """
    if not resume:
        RunFolder.require_new(path)
    stores = open_stores(request)
    training = build_training_set(request, stores)
    device = resolve_device(request.device)
    if resume:
        run = RunFolder.open(path)
        settings = run.settings()
        request.require_same(settings.get("request", {}), str(path))
        resolved = Resolved.from_json(settings.get("resolved"))
        require_same_classes(resolved, training, path)
    else:
        resolved = resolve(request, stores, training, device)
        run = RunFolder.create(path, {"request": request.to_json(), "resolved": resolved.to_json()})

    torch.set_num_threads(resolved.threads)
    torch.manual_seed(request.seed)
    detector = build_detector(resolved.spec)
    notes = list(training.notes)
    if request.initial_weights is not None:
        cfg = None if request.initial_cfg is None else Path(request.initial_cfg)
        loaded = load_prefix(detector, Path(request.initial_weights), cfg)
        notes.append(f"{loaded} of {len(detector.convolutions())} convolutions begin with {request.initial_weights}")
    return _train(request, resolved, run, training, detector, device, notes)


def require_same_classes(resolved: Resolved, training: TrainingSet, path: Path) -> None:
    """RequestError where the annotations or stores name other classes than the run was begun with."""
    if resolved.spec.classes != training.classes:
        raise RequestError(
            f"{path} was begun with the classes {', '.join(resolved.spec.classes)}; now there are "
            f"{', '.join(training.classes)}. Give the same --store, --annotations and --names"
        )


def resolve(
    request: TrainRequest, stores: Sequence[LabelStore], training: TrainingSet, device: torch.device
) -> Resolved:
    """Settle what the request leaves open: from the first store where there is one, else the paper's values."""
    geometry = stores[0].attributes.input if stores else None
    size = request.input_size or (geometry.width if geometry else DEFAULT_INPUT)
    check_input_size(size)
    resize = request.resize or (geometry.resize if geometry else "letterbox")
    return Resolved(
        spec=DetectorSpec(model_config(request), training.classes, _anchors(request, stores, training, size, resize)),
        input_size=size,
        resize=resize,
        precision=resolve_precision(request.precision, device),
        threads=torch.get_num_threads(),
    )


def model_config(request: TrainRequest) -> ModelConfig:
    """The architecture's configuration. RequestError for flags of F-YOLO with another model."""
    if request.model == "f-yolo":
        return FYoloConfig(
            reading=request.reading,  # type: ignore[arg-type]  # FYoloConfig checks it
            merge=request.merge,  # type: ignore[arg-type]  # FYoloConfig checks it
            merged=request.merged,
            extra_1x1=request.extra_1x1,
            width=request.width,
        )
    defaults = TrainRequest()
    for name in ("reading", "merge", "merged", "extra_1x1"):
        if getattr(request, name) != getattr(defaults, name):
            raise RequestError(f"--{name.replace('_', '-')} is F-YOLO's; leave it out with --model {request.model}")
    if request.model == "tiny-yolo":
        return TinyYoloConfig(request.width)
    return YoloV2Config(request.width)


def _anchors(
    request: TrainRequest, stores: Sequence[LabelStore], training: TrainingSet, size: int, resize: Resize
) -> Anchors:
    if request.anchors == "auto":
        return stores[0].attributes.teacher.anchors if stores else default_anchors(request.model)
    if request.anchors == "model":
        return default_anchors(request.model)
    if request.anchors != "kmeans":
        return parse_anchors(request.anchors)
    if training.annotations is None:
        raise RequestError("--anchors kmeans clusters annotated boxes; give --annotations, or --anchors auto")
    sizes = annotated_sizes(training, size, resize)
    anchors, _ = kmeans_anchors(sizes, seed=request.seed)
    return anchors


def annotated_sizes(training: TrainingSet, size: int, resize: Resize) -> NDArray[np.float64]:
    """Width and height of every annotated training box in cells of the student's grid, [n, 2]."""

    def sizes(item: TrainingPicture) -> NDArray[np.float64]:
        try:
            rows, columns = read_picture(item.path).pixels.shape[:2]
        except RejectedPictureError:
            return np.zeros((0, 2))
        truth = item.truth(rows, columns) if item.truth else None
        if truth is None:
            return np.zeros((0, 2))
        boxes, _ = place_truth(truth, resize_view(resize, rows, columns, size, size), rows, columns)
        return boxes[:, 2:].astype(np.float64) * (size // 32)

    annotated = [item for item in training.pictures if item.truth]
    return np.concatenate([np.zeros((0, 2)), *map_ahead(sizes, annotated, threads=torch.get_num_threads(), ahead=16)])


def augmentation(request: TrainRequest) -> AugmentConfig:
    """Darknet's strengths, switched as asked; `none` is no flip either."""
    return AugmentConfig(
        geometric=request.augment == "full",
        photometric=request.augment != "none",
        flip=0.5 if request.flip and request.augment != "none" else 0.0,
    )


def _validator(
    training: TrainingSet,
    resolved: Resolved,
    samples: SampleSettings,
    losses: ObjectiveConfig,
    device: torch.device,
    cache: PictureCache,
    threads: int,
) -> Validator | None:
    if training.validation and training.annotations is not None:
        return accuracy_validator(
            training.validation,
            training.annotations,
            input_size=resolved.input_size,
            resize=resolved.resize,
            device=device,
            precision=resolved.precision,
            batch_size=VALIDATION_BATCH,
            threads=threads,
            cache=cache,
        )
    if training.held_out:
        return teacher_validator(
            training.held_out,
            samples,
            losses,
            input_size=resolved.input_size,
            device=device,
            precision=resolved.precision,
            batch_size=VALIDATION_BATCH,
            threads=threads,
            cache=cache,
        )
    return None


def _train(
    request: TrainRequest,
    resolved: Resolved,
    run: RunFolder,
    training: TrainingSet,
    detector: Detector,
    device: torch.device,
    notes: list[str],
) -> dict[str, Any]:
    threads = request.workers or resolved.threads
    distilled = bool(request.stores) and request.distillation_weight > 0
    pictures = training.pictures if distilled else [replace(item, stored=None) for item in training.pictures]
    samples = SampleSettings(
        anchors=resolved.spec.anchors,
        classes=len(training.classes),
        resize=resolved.resize,
        augment=augmentation(request),
        seed=request.seed,
    )
    losses = ObjectiveConfig(
        distillation=DistillationConfig(
            weight=request.distillation_weight,
            objectness_scaling=request.objectness_scaling,
            objectness=request.distill_objectness,
            box=request.distill_box,
            classes=request.distill_class,
        )
    )
    trainer = Trainer(
        detector,
        losses,
        OptimiserConfig(request.momentum, request.weight_decay, request.clip_norm, request.ema),
        device=device,
        precision=resolved.precision,
    )
    cache = PictureCache(int(request.image_cache_gb * 1e9))
    settings = FitSettings(
        epochs=request.epochs,
        batch_size=request.batch_size,
        input_size=resolved.input_size,
        multi_scale=request.multi_scale,
        learning_rate=request.learning_rate,
        labelled_share=request.labelled_share,
        validate_every=request.validate_every or max(1, request.epochs // VALIDATIONS),
        threads=threads,
    )
    geometry = {"height": resolved.input_size, "width": resolved.input_size, "resize": resolved.resize}

    def keep(network: Detector, name: str, metadata: Mapping[str, Any]) -> None:
        save_detector(run.path / f"{name}.safetensors", network, {"input": geometry, **metadata})

    total = request.epochs * batches_per_epoch(len(pictures), request.batch_size)
    with show_progress("training", total, "batches") as progress, stop_on_warning() as interruption:
        result = fit(
            run,
            trainer,
            pictures,
            training.labelled,
            samples,
            settings,
            _validator(training, resolved, samples, losses, device, cache, threads),
            keep,
            cache=cache,
            progress=progress,
            interruption=interruption,
        )
    labelled = sum(training.labelled)
    summary = {
        "run": str(run.path),
        "pictures": len(pictures),
        "labelled": labelled,
        "with_teacher": sum(item.stored is not None for item in pictures),
        "validation": len(training.validation) or len(training.held_out),
        "epochs": result.epochs,
        "best": result.best,
        "seconds": round(result.seconds, 1),
        "notes": notes,
    }
    trained = f"{len(pictures)} pictures ({labelled} annotated, {summary['with_teacher']} with soft labels)"
    first = f"{run.path}: {request.model}, {result.epochs} epochs on {trained} in {result.seconds:.0f} s"
    return summary | {"text": "\n".join([first, *notes])}
