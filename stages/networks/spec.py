"""What a detector is, apart from its weights: model, classes, anchors, and the model's own configuration."""

import json
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any, Literal

from data.errors import RequestError
from stages.networks import f_yolo, tiny_yolo, yolov2
from stages.networks.cfg_layers import read_network
from stages.networks.f_yolo import FYoloConfig, f_yolo_layers
from stages.networks.layers import Layer
from stages.networks.region import BOX_ENTRIES
from stages.networks.tiny_yolo import TinyYoloConfig, tiny_yolo_layers
from stages.networks.yolov2 import YoloV2Config, yolov2_layers

Anchors = tuple[tuple[float, float], ...]
ModelName = Literal["f-yolo", "tiny-yolo", "yolov2", "darknet"]


@dataclass(frozen=True, slots=True)
class DarknetConfig:
    """cfg: the whole text of a Darknet cfg."""

    cfg: str


ModelConfig = FYoloConfig | TinyYoloConfig | YoloV2Config | DarknetConfig

_CONFIGS: dict[str, type[ModelConfig]] = {
    "f-yolo": FYoloConfig,
    "tiny-yolo": TinyYoloConfig,
    "yolov2": YoloV2Config,
    "darknet": DarknetConfig,
}
_DEFAULT_ANCHORS: dict[str, Anchors] = {
    "f-yolo": f_yolo.DEFAULT_ANCHORS,
    "tiny-yolo": tiny_yolo.DEFAULT_ANCHORS,
    "yolov2": yolov2.DEFAULT_ANCHORS,
}
OWN_MODELS = tuple(_DEFAULT_ANCHORS)
"""The models that can be built by name alone; a Darknet cfg is the fourth kind."""


def default_anchors(model: str) -> Anchors:
    """The model's anchors in Darknet's Pascal VOC files, in cells. RequestError for a model there is none for."""
    if model not in _DEFAULT_ANCHORS:
        raise RequestError(f"There is no model {model!r}; it must be one of {', '.join(OWN_MODELS)}.")
    return _DEFAULT_ANCHORS[model]


@dataclass(frozen=True, slots=True)
class DetectorSpec:
    """A detector without its weights; equal specs build networks of equal shape.

    classes: names, in the order of the class entries. anchors: (width, height) in cells of the grid.
    RequestError for no or repeated classes, anchors that are no positive sizes, or another model's configuration.
    """

    config: ModelConfig
    classes: tuple[str, ...]
    anchors: Anchors

    def __post_init__(self) -> None:
        if not self.classes or len(set(self.classes)) != len(self.classes):
            raise RequestError(f"A detector needs classes with names of their own, not {list(self.classes)}.")
        if not self.anchors or not all(isfinite(w) and isfinite(h) and w > 0 and h > 0 for w, h in self.anchors):
            raise RequestError(f"Anchors are positive widths and heights in cells, not {list(self.anchors)}.")

    @property
    def model(self) -> str:
        """f-yolo, tiny-yolo, yolov2 or darknet."""
        return next(name for name, config in _CONFIGS.items() if isinstance(self.config, config))

    def to_json(self) -> dict[str, Any]:
        """The spec as values that json writes and `from_json` reads back."""
        return {
            "model": self.model,
            "config": asdict(self.config),
            "classes": list(self.classes),
            "anchors": [list(anchor) for anchor in self.anchors],
        }

    @staticmethod
    def from_json(values: Any) -> "DetectorSpec":
        """The inverse of `to_json`. RequestError for anything else."""
        try:
            options = {key: tuple(v) if isinstance(v, list) else v for key, v in values["config"].items()}
            configure: Any = _CONFIGS[values["model"]]
            return DetectorSpec(
                config=configure(**options),
                classes=tuple(str(name) for name in values["classes"]),
                anchors=tuple((float(w), float(h)) for w, h in values["anchors"]),
            )
        except RequestError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RequestError(
                f"This does not describe a detector by model, config, classes and anchors: {json.dumps(values)[:200]}"
            ) from error


def detector_layers(spec: DetectorSpec) -> list[Layer]:
    """The layers that the spec stands for. RequestError if its cfg is none of a detector."""
    outputs = len(spec.anchors) * (BOX_ENTRIES + len(spec.classes))
    match spec.config:
        case FYoloConfig():
            return f_yolo_layers(spec.config, outputs)
        case TinyYoloConfig():
            return tiny_yolo_layers(spec.config, outputs)
        case YoloV2Config():
            return yolov2_layers(spec.config, outputs)
        case DarknetConfig():
            return list(read_network(spec.config.cfg, "the stored cfg").layers)


def own_spec(
    model: str, classes: tuple[str, ...], config: ModelConfig | None = None, anchors: Anchors | None = None
) -> DetectorSpec:
    """The spec of one of the project's own models; its paper's configuration and VOC anchors unless given.

    RequestError for an unknown model name, ValueError for another model's configuration.
    """
    defaults = default_anchors(model)
    configure: Any = _CONFIGS[model]
    if config is not None and not isinstance(config, configure):
        raise ValueError(f"{config} does not configure {model}")
    return DetectorSpec(config or configure(), classes, anchors or defaults)
