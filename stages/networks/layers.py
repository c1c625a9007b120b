"""A network as a list of typed, named layers: what `Detector` executes and what a Darknet cfg becomes.

Every layer names the layers it reads, so the list is the whole graph; "input" is the picture. Layers stand in the order
in which they run, and the convolutions in the order in which a Darknet weights file stores them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from data.errors import RequestError

INPUT = "input"
INPUT_CHANNELS = 3


@dataclass(frozen=True, slots=True)
class Convolution:
    """Convolution, then batch normalisation or a bias, then leaky ReLU (slope 0.1) or nothing."""

    name: str
    source: str
    filters: int
    kernel: int
    stride: int = 1
    padding: int = 0
    groups: int = 1
    batch_norm: bool = True
    activation: Literal["leaky", "linear"] = "leaky"

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.source,)


@dataclass(frozen=True, slots=True)
class MaxPool:
    """Darknet's max-pool (src/maxpool_layer.c): `padding` rows and columns in all, the smaller half left and top.

    The output has (size + padding - kernel) // stride + 1 rows; what is padded never wins. With kernel 2 and stride 1
    that pads right and bottom only, with kernel 2 and stride 2 an even map is not padded at all.
    """

    name: str
    source: str
    kernel: int
    stride: int
    padding: int

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.source,)


@dataclass(frozen=True, slots=True)
class Reorg:
    """Darknet's `reorg` (src/blas.c): space into channels, in an index order of its own, not pixel-unshuffle's."""

    name: str
    source: str
    stride: int

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.source,)


@dataclass(frozen=True, slots=True)
class SpaceToDepth:
    """Stacking (Object detection at 200 FPS, section 3.1): torch's pixel_unshuffle, channel c·s² + row·s + column."""

    name: str
    source: str
    stride: int

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.source,)


@dataclass(frozen=True, slots=True)
class Concatenation:
    """The channels of several maps of one size, in this order."""

    name: str
    sources: tuple[str, ...]


Layer = Convolution | MaxPool | Reorg | SpaceToDepth | Concatenation


@dataclass(frozen=True, slots=True)
class MapShape:
    """A layer's output: its channels, and how many input pixels one of its cells is wide."""

    channels: int
    stride: int


def map_shapes(layers: Sequence[Layer]) -> dict[str, MapShape]:
    """The shape of every layer's output by name, and a check that the list is a network.

    RequestError where a layer reads one that does not come before it, a name is used twice, or maps that are to be
    concatenated differ in stride.
    """
    shapes = {INPUT: MapShape(INPUT_CHANNELS, 1)}
    for layer in layers:
        if layer.name in shapes:
            raise RequestError(f"Two layers are called {layer.name!r}; every layer needs a name of its own.")
        missing = [name for name in layer.sources if name not in shapes]
        if missing or not layer.sources:
            raise RequestError(f"Layer {layer.name!r} reads {missing}, which no layer before it computes.")
        shapes[layer.name] = _shape(layer, [shapes[name] for name in layer.sources])
    del shapes[INPUT]
    return shapes


def _shape(layer: Layer, sources: list[MapShape]) -> MapShape:
    source = sources[0]
    match layer:
        case Convolution():
            if source.channels % layer.groups or layer.filters % layer.groups:
                raise RequestError(
                    f"Layer {layer.name!r}: {source.channels} channels in and {layer.filters} out do not divide into "
                    f"{layer.groups} groups."
                )
            return MapShape(layer.filters, source.stride * layer.stride)
        case MaxPool():
            return MapShape(source.channels, source.stride * layer.stride)
        case Reorg():
            if source.channels % layer.stride**2:
                raise RequestError(
                    f"Layer {layer.name!r}: Darknet's reorg with stride {layer.stride} needs a multiple of "
                    f"{layer.stride**2} channels, not {source.channels}."
                )
            return MapShape(source.channels * layer.stride**2, source.stride * layer.stride)
        case SpaceToDepth():
            return MapShape(source.channels * layer.stride**2, source.stride * layer.stride)
        case Concatenation():
            if len({s.stride for s in sources}) > 1:
                strides = ", ".join(f"{name} {s.stride}" for name, s in zip(layer.sources, sources, strict=True))
                raise RequestError(f"Layer {layer.name!r} joins maps of different strides ({strides}).")
            return MapShape(sum(s.channels for s in sources), source.stride)


def scaled(channels: int, width: float) -> int:
    """A channel count under a width factor: the nearest multiple of 8, at least 8; unchanged at width 1."""
    if width == 1:
        return channels
    return max(8, round(channels * width / 8) * 8)


def check_width(width: float) -> None:
    """RequestError unless 0 < width <= 4."""
    if not 0 < width <= 4:
        raise RequestError(f"A width factor of {width} is not possible; it must be above 0 and at most 4.")
