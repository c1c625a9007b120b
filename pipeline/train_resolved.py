"""What a training request leaves open, settled: from the first store where there is one, else the paper's values."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from data.errors import RequestError
from data.images import RejectedPictureError, read_picture
from data.prefetch import map_ahead
from data.store.reader import LabelStore
from data.views import Resize, resize_view
from pipeline.input_size import check_input_size
from pipeline.train_request import TrainRequest, parse_anchors
from pipeline.training_set import TrainingSet
from stages.device import Precision, resolve_precision
from stages.networks.anchors import kmeans_anchors
from stages.networks.f_yolo import FYoloConfig
from stages.networks.spec import Anchors, DetectorSpec, ModelConfig, default_anchors
from stages.networks.tiny_yolo import TinyYoloConfig
from stages.networks.yolov2 import YoloV2Config
from stages.student.place_truth import place_truth
from stages.student.samples import TrainingPicture

DEFAULT_INPUT = 416


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


def resolve(
    request: TrainRequest, stores: Sequence[LabelStore], training: TrainingSet, device: torch.device, threads: int
) -> Resolved:
    """Settle what the request leaves open: from the first store where there is one, else the paper's values.

    threads: of arithmetic, for all ranks of a machine together.
    """
    geometry = stores[0].attributes.input if stores else None
    size = request.input_size
    if size is None:
        size = geometry.width if geometry else DEFAULT_INPUT
    check_input_size(size)
    resize = request.resize or (geometry.resize if geometry else "letterbox")
    return Resolved(
        spec=DetectorSpec(model_config(request), training.classes, _anchors(request, stores, training, size, resize)),
        input_size=size,
        resize=resize,
        precision=resolve_precision(request.precision, device),
        threads=threads,
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


def _of_the_teacher(store: LabelStore, size: int) -> Anchors:
    """The teacher's anchors, in cells of the student's grid: the same share of the picture at another input size."""
    share = size / store.attributes.input.width
    return tuple((width * share, height * share) for width, height in store.attributes.teacher.anchors)


def _anchors(
    request: TrainRequest, stores: Sequence[LabelStore], training: TrainingSet, size: int, resize: Resize
) -> Anchors:
    if request.anchors == "auto":
        return _of_the_teacher(stores[0], size) if stores else default_anchors(request.model)
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
