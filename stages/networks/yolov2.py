"""YOLOv2: Darknet-19, the passthrough from the 26×26 map, and the region head (Darknet, cfg/yolov2-voc.cfg)."""

from dataclasses import dataclass

from stages.networks.layers import INPUT, Concatenation, Convolution, Layer, MaxPool, Reorg, check_width, scaled

DEFAULT_ANCHORS = ((1.3221, 1.73145), (3.19275, 4.00944), (5.05587, 8.09892), (9.47112, 4.84053), (11.2364, 10.0071))
"""cfg/yolov2-voc.cfg, in cells."""

_TRUNK: tuple[tuple[tuple[int, int], ...], ...] = (
    ((32, 3),),
    ((64, 3),),
    ((128, 3), (64, 1), (128, 3)),
    ((256, 3), (128, 1), (256, 3)),
    ((512, 3), (256, 1), (512, 3), (256, 1), (512, 3)),
    ((1024, 3), (512, 1), (1024, 3), (512, 1), (1024, 3), (1024, 3), (1024, 3)),
)
"""(filters, kernel) of every convolution, a max-pool between the groups; the last two are the detector's own."""


@dataclass(frozen=True, slots=True)
class YoloV2Config:
    """width: factor on every channel count but the output's; counts are rounded to multiples of 8, at least 8.

    RequestError unless 0 < width <= 4.
    """

    width: float = 1.0

    def __post_init__(self) -> None:
        check_width(self.width)


def yolov2_layers(config: YoloV2Config, outputs: int) -> list[Layer]:
    """The layers of yolov2-voc.cfg in its order and with the names a cfg gets, ending in `outputs` linear channels."""
    layers: list[Layer] = []
    source, number = INPUT, 0
    for group, convolutions in enumerate(_TRUNK):
        if group:
            layers.append(MaxPool(f"pool{group}", source, 2, 2, 1))
            source = layers[-1].name
        for filters, kernel in convolutions:
            number += 1
            layers.append(
                Convolution(f"conv{number}", source, scaled(filters, config.width), kernel, padding=kernel // 2)
            )
            source = layers[-1].name
    return [
        *layers,
        Convolution("conv21", "conv13", scaled(64, config.width), 1),
        Reorg("reorg1", "conv21", 2),
        Concatenation("route1", ("reorg1", "conv20")),
        Convolution("conv22", "route1", scaled(1024, config.width), 3, padding=1),
        Convolution("conv23", "conv22", outputs, 1, batch_norm=False, activation="linear"),
    ]
