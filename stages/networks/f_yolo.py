"""F-YOLO, the student of Object detection at 200 FPS (Mehta & Ozturk, arXiv 1805.06361, Fig. 2 and Table 1).

A narrow trunk of seven 3×3 convolutions. The maps of earlier levels are brought to the last grid and concatenated with
the last merged level's ("feature map merging"). docs/networks.md lists the widths of every row of Table 1.

What the printed figure leaves open, and what stands here:
- 256 + 256 + 128 and the 1×1 after Conv7 do not reach the printed 1792. Reading A widens Conv5's bottleneck from 32 to
  64 (3·256 + 1024); reading B keeps the printed side branches and widens the 1×1 after Conv7 from 1024 to 1152.
- Conv6 has no side branch in the figure: "Conv3–7" merges Conv3, Conv4 and Conv5 into the map of Conv7.
- "Convn–6" is not drawn. Here the side branches join the map of Conv6 itself, and Conv7 reads the joined map.
- Conv2's bottleneck, not drawn either, is 1, so that it too stacks to 256 channels.
- Merging by max-pool keeps the merged widths, so that Table 1 compares the resizing alone: the level's map is pooled to
  the last grid first, then a 1×1 convolution brings it to the width that stacking gives.
- The extra 1×1 layers are the two of 1024 channels before the output; without them the output reads the merged map
  (or Conv7, where the merging ends at Conv6).
"""

from dataclasses import dataclass
from typing import Literal

from data.errors import RequestError
from stages.networks.layers import INPUT, Concatenation, Convolution, Layer, MaxPool, SpaceToDepth, check_width, scaled
from stages.networks.tiny_yolo import DEFAULT_ANCHORS as DEFAULT_ANCHORS  # the paper's student is a Tiny-YOLO

_TRUNK = {1: 16, 2: 32, 3: 64, 4: 128, 5: 256, 6: 512, 7: 512}
_BOTTLENECKS = {"A": {2: 1, 3: 4, 4: 16, 5: 64}, "B": {2: 1, 3: 4, 4: 16, 5: 32}}
_LAST_1X1 = {"A": 1024, "B": 1152}
_GRID_STRIDE = {2: 16, 3: 8, 4: 4, 5: 2}
"""How many cells of a level lie side by side in one cell of the last grid."""


@dataclass(frozen=True, slots=True)
class FYoloConfig:
    """reading: see above. merge: how a level reaches the last grid. merged: first and last merged level, as Table 1
    prints them: (5, 6), (4, 6), (3, 6), (2, 6) or (2…5, 7). extra_1x1: the two 1×1 layers before the output. width:
    factor on every channel count but the output's (multiples of 8, at least 8; bottlenecks that are stacked to whole
    numbers, at least 1).

    RequestError for a value that is none of these.
    """

    reading: Literal["A", "B"] = "A"
    merge: Literal["stack", "max-pool"] = "stack"
    merged: tuple[int, int] = (3, 7)
    extra_1x1: bool = True
    width: float = 1.0

    def __post_init__(self) -> None:
        check_width(self.width)
        if self.reading not in _BOTTLENECKS:
            raise RequestError(f"F-YOLO has no reading {self.reading!r}; it must be A or B.")
        if self.merge not in ("stack", "max-pool"):
            raise RequestError(f"F-YOLO cannot merge by {self.merge!r}; it must be stack or max-pool.")
        first, last = self.merged
        if first not in _GRID_STRIDE or last not in (6, 7):
            raise RequestError(
                f"F-YOLO cannot merge levels {first} to {last}; the first must be 2 to 5, the last 6 or 7."
            )


def f_yolo_layers(config: FYoloConfig, outputs: int) -> list[Layer]:
    """The layers of the student, ending in a 3×3 convolution of `outputs` linear channels called "output".

    The trunk (conv1…conv7) stands before the bottlenecks where the merging allows, so that the weights of a Darknet
    classifier load as a prefix.
    """
    first, last = config.merged
    branches = [layer for level in range(first, 6) for layer in _branch(level, config)]
    merged = [layer.name for layer in branches if layer.name.startswith("merged")]
    if last == 7:
        top = scaled(_LAST_1X1[config.reading], config.width)
        joined: list[Layer] = [
            *_trunk(7, config),
            *branches,
            Convolution("bottleneck7", "conv7", top, 1),
            Concatenation("concatenation", (*merged, "bottleneck7")),
        ]
    else:
        joined = [
            *_trunk(6, config),
            *branches,
            Concatenation("concatenation", (*merged, "conv6")),
            Convolution("conv7", "concatenation", scaled(_TRUNK[7], config.width), 3, padding=1),
        ]
    source = joined[-1].name
    extra: list[Layer] = []
    if config.extra_1x1:
        wide = scaled(1024, config.width)
        extra = [Convolution("extra1", source, wide, 1), Convolution("extra2", "extra1", wide, 1)]
        source = "extra2"
    output = Convolution("output", source, outputs, 3, padding=1, batch_norm=False, activation="linear")
    return [*joined, *extra, output]


def _trunk(levels: int, config: FYoloConfig) -> list[Layer]:
    layers: list[Layer] = []
    source = INPUT
    for level in range(1, levels + 1):
        if 2 <= level <= 6:
            layers.append(MaxPool(f"pool{level - 1}", source, 2, 2, 1))
            source = layers[-1].name
        layers.append(Convolution(f"conv{level}", source, scaled(_TRUNK[level], config.width), 3, padding=1))
        source = layers[-1].name
    return layers


def _branch(level: int, config: FYoloConfig) -> list[Layer]:
    stride = _GRID_STRIDE[level]
    bottleneck = max(1, round(_BOTTLENECKS[config.reading][level] * config.width))
    if config.merge == "stack":
        return [
            Convolution(f"bottleneck{level}", f"conv{level}", bottleneck, 1),
            SpaceToDepth(f"merged{level}", f"bottleneck{level}", stride),
        ]
    return [
        MaxPool(f"pooled{level}", f"conv{level}", stride, stride, 0),
        Convolution(f"merged{level}", f"pooled{level}", bottleneck * stride**2, 1),
    ]
