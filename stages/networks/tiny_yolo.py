"""Tiny-YOLO, the paper's baseline student (Darknet, cfg/yolov2-tiny-voc.cfg)."""

from dataclasses import dataclass

from stages.networks.layers import INPUT, Convolution, Layer, MaxPool, check_width, scaled

DEFAULT_ANCHORS = ((1.08, 1.19), (3.42, 4.41), (6.63, 11.38), (9.42, 5.11), (16.62, 10.52))
"""cfg/yolov2-tiny-voc.cfg and cfg/yolo-voc.2.0.cfg, in cells."""

_FILTERS = (16, 32, 64, 128, 256, 512, 1024, 1024)


@dataclass(frozen=True, slots=True)
class TinyYoloConfig:
    """width: factor on every channel count but the output's; counts are rounded to multiples of 8, at least 8.

    RequestError unless 0 < width <= 4.
    """

    width: float = 1.0

    def __post_init__(self) -> None:
        check_width(self.width)


def tiny_yolo_layers(config: TinyYoloConfig, outputs: int) -> list[Layer]:
    """The layers of yolov2-tiny-voc.cfg with the names a cfg gets, ending in `outputs` linear channels.

    Five max-pools halve the map, the sixth (stride 1) keeps it at 13×13.
    """
    layers: list[Layer] = []
    source = INPUT
    for number, filters in enumerate(_FILTERS, start=1):
        layers.append(Convolution(f"conv{number}", source, scaled(filters, config.width), 3, padding=1))
        source = layers[-1].name
        if number <= 6:
            layers.append(MaxPool(f"pool{number}", source, 2, 2 if number < 6 else 1, 1))
            source = layers[-1].name
    return [*layers, Convolution("conv9", source, outputs, 1, batch_norm=False, activation="linear")]
