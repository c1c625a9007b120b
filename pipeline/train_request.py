"""The flags of `distill train` as one value, and what of it a run folder keeps."""

from dataclasses import asdict, dataclass, fields
from math import isfinite
from typing import Any, Literal

from data.errors import RequestError

MAY_CHANGE_ON_RESUME = frozenset({"images", "stores", "device", "workers", "image_cache_gb", "annotations", "names"})
"""Where things lie, and on what the run computes; everything else decides what is learnt."""


@dataclass(frozen=True, slots=True)
class TrainRequest:
    """One field per flag of `distill train`, under its name; None is resolved from the store or the model."""

    stores: tuple[str, ...] = ()
    store_weights: tuple[float, ...] = ()
    images: tuple[str, ...] = ()
    annotations: str | None = None
    annotation_format: Literal["voc", "coco", "yolo"] | None = None
    drop_other_classes: bool = False
    names: str | None = None
    train_lists: tuple[str, ...] = ()
    val_lists: tuple[str, ...] = ()
    test_lists: tuple[str, ...] = ()
    val_fraction: float = 0.1
    model: str = "f-yolo"
    width: float = 1.0
    reading: str = "A"
    merge: str = "stack"
    merged: tuple[int, int] = (3, 7)
    extra_1x1: bool = True
    anchors: str = "auto"
    initial_weights: str | None = None
    initial_cfg: str | None = None
    epochs: int = 160
    batch_size: int = 32
    input_size: int | None = None
    multi_scale: bool = False
    resize: Literal["letterbox", "stretch"] | None = None
    augment: Literal["none", "photometric", "full"] = "full"
    flip: bool = True
    labelled_share: float | None = None
    learning_rate: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 5e-4
    clip_norm: float = 20.0
    ema: float | None = None
    distillation_weight: float = 1.0
    objectness_scaling: bool = True
    distill_objectness: bool = True
    distill_box: bool = True
    distill_class: bool = True
    sync_batch_norm: bool = True
    validate_every: int | None = None
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    workers: int | None = None
    image_cache_gb: float = 2.0

    def __post_init__(self) -> None:
        """RequestError for numbers that the command line's ranges let through."""
        for name in ("learning_rate", "weight_decay", "clip_norm", "distillation_weight", "image_cache_gb"):
            value = getattr(self, name)
            if value is not None and not isfinite(value):
                raise RequestError(f"--{name.removesuffix('_gb').replace('_', '-')} {value}: give a finite number")
        if self.store_weights and len(self.store_weights) != len(self.stores):
            raise RequestError(
                f"{len(self.store_weights)} --store-weight for {len(self.stores)} --store: give one for each, in "
                "order, or none for the average"
            )
        if any(not (isfinite(weight) and weight > 0) for weight in self.store_weights):
            raise RequestError("--store-weight: give numbers above 0; a store without weight can be left out")
        if self.ema is not None and not 0 <= self.ema < 1:
            raise RequestError(f"--ema {self.ema:g}: give a decay of at least 0 and below 1, such as 0.9998")
        if self.labelled_share is not None and self.batch_size < 2:
            raise RequestError("--labelled-share mixes annotated and other pictures in a batch: --batch-size 2 or more")

    @property
    def distills(self) -> bool:
        """Whether anything of a teacher's labels reaches the loss."""
        terms = self.distill_objectness or self.distill_box or self.distill_class
        return bool(self.stores) and self.distillation_weight > 0 and terms

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)

    def require_same(self, recorded: dict[str, Any], run: str) -> None:
        """RequestError where a resumed run's recorded flags differ in what decides what is learnt.

        A flag that the record lacks is younger than the run, which went as the flag's default says.
        """
        mine = self.to_json()
        then = {field.name: recorded.get(field.name, field.default) for field in fields(self)}
        differing = [
            f"{name} {value!r} there, {mine[name]!r} asked"
            for name, value in then.items()
            if name not in MAY_CHANGE_ON_RESUME and _plain(value) != _plain(mine[name])
        ]
        if differing:
            raise RequestError(
                f"{run} was begun with other settings: {'; '.join(differing)}. Give the same flags with --resume, or "
                "begin a new run"
            )


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def parse_levels(text: str) -> tuple[int, int]:
    """`3-7` as (3, 7); RequestError for anything else."""
    first, _, last = text.partition("-")
    if not (first.isdecimal() and last.isdecimal()):
        raise RequestError(f"--merged {text}: give the first and the last merged level, such as 3-7")
    return int(first), int(last)


def parse_anchors(text: str) -> tuple[tuple[float, float], ...]:
    """`1.08,1.19 3.42,4.41` as pairs; RequestError for anything else."""
    try:
        pairs = [tuple(float(number) for number in pair.split(",")) for pair in text.split()]
    except ValueError as error:
        raise RequestError(
            f"--anchors {text}: give auto, model, kmeans, or pairs in cells such as '1.08,1.19 3.42,4.41'"
        ) from error
    if not pairs or any(len(pair) != 2 for pair in pairs):
        raise RequestError(
            f"--anchors {text}: give auto, model, kmeans, or pairs in cells such as '1.08,1.19 3.42,4.41'"
        )
    return tuple((pair[0], pair[1]) for pair in pairs)
