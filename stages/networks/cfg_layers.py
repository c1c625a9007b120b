"""From the sections of a Darknet cfg to a list of layers."""

from dataclasses import dataclass

from data.darknet.cfg import Section, parse_cfg
from data.darknet.weights import ConvolutionShape
from data.errors import RequestError
from stages.networks.layers import (
    INPUT,
    INPUT_CHANNELS,
    Concatenation,
    Convolution,
    Layer,
    MaxPool,
    Reorg,
    map_shapes,
)
from stages.networks.region import BOX_ENTRIES

_LONG_NAMES = {"conv": "convolutional", "max": "maxpool", "avg": "avgpool", "soft": "softmax", "conn": "connected"}
_CLASSIFIER_ENDS = ("avgpool", "softmax", "cost", "dropout", "connected")
_SUPPORTED = ("convolutional", "maxpool", "route", "reorg", "region", *_CLASSIFIER_ENDS)
_REFUSED = {
    "convolutional": ("binary", "xnor", "flipped", "dontload", "dontloadscales"),
    "reorg": ("reverse", "flatten", "extra"),
    "region": ("background",),
}
"""Options that change what the values mean; none of the YOLOv2 family's published cfgs has one."""


@dataclass(frozen=True, slots=True)
class CfgNetwork:
    """A detector's cfg. layers: ending in the convolution that feeds [region]. classes: how many. Sizes in pixels."""

    layers: tuple[Layer, ...]
    anchors: tuple[tuple[float, float], ...]
    classes: int
    input_height: int
    input_width: int


def read_network(text: str, where: str) -> CfgNetwork:
    """A YOLOv2-family detector. RequestError, with section and line, for what is not computed here as Darknet does."""
    net, *sections = parse_cfg(text, where)
    if not sections or sections[-1].type != "region":
        raise RequestError(
            f"{where} is not a YOLOv2 detector: its last section must be [region]. "
            f"A classifier's weights can start a training, but it cannot detect."
        )
    region = sections[-1]
    layers = _layers(net, sections[:-1])
    anchors, classes = _region(region)
    if not layers or not isinstance(layers[-1], Convolution):
        raise region.error("the layer before it must be [convolutional]")
    wanted = len(anchors) * (BOX_ENTRIES + classes)
    if layers[-1].filters != wanted:
        raise region.error(
            f"the convolution before it has filters={layers[-1].filters}, but num={len(anchors)} and classes={classes} "
            f"need {wanted}"
        )
    return CfgNetwork(tuple(layers), anchors, classes, *_input_size(net, layers))


def leading_convolutions(text: str, where: str) -> tuple[list[ConvolutionShape], bool]:
    """What a detector's or a classifier's weights file begins with, up to its first [connected] layer.

    Returns the convolutions' shapes, and whether a fully connected layer's weights follow them.
    """
    net, *sections = parse_cfg(text, where)
    kinds = [_kind(section) for section in sections]
    end = kinds.index("connected") if "connected" in kinds else len(sections)
    trunk = [
        s for s, kind in zip(sections[:end], kinds[:end], strict=True) if kind not in (*_CLASSIFIER_ENDS, "region")
    ]
    return convolution_shapes(_layers(net, trunk)), end < len(sections)


def convolution_shapes(layers: list[Layer] | tuple[Layer, ...]) -> list[ConvolutionShape]:
    """What each convolution takes in a weights file, in order."""
    channels = {INPUT: INPUT_CHANNELS} | {name: shape.channels for name, shape in map_shapes(layers).items()}
    return [
        ConvolutionShape(layer.filters, channels[layer.source] // layer.groups, layer.kernel, layer.batch_norm)
        for layer in layers
        if isinstance(layer, Convolution)
    ]


def _kind(section: Section) -> str:
    kind = _LONG_NAMES.get(section.type, section.type)
    if kind not in _SUPPORTED:
        raise section.error(f"this layer is not supported; the supported ones are {', '.join(_SUPPORTED)}")
    for key in _REFUSED.get(kind, ()):
        if section.integer(key, 0):
            raise section.error(f"{key}={section.options[key]} is not supported")
    return kind


def _layers(net: Section, sections: list[Section]) -> list[Layer]:
    if net.integer("channels", INPUT_CHANNELS) != INPUT_CHANNELS:
        raise net.error(f"channels={net.options['channels']} is not supported; pictures have {INPUT_CHANNELS}")
    layers: list[Layer] = []
    outputs: list[str] = []  # of each section, as routes count them: the layer that computes it
    for section in sections:
        source = outputs[-1] if outputs else INPUT
        kind = _kind(section)
        number = sum(layer.name.startswith(_PREFIX.get(kind, kind)) for layer in layers) + 1
        match kind:
            case "convolutional":
                layers.append(_convolution(section, f"conv{number}", source))
            case "maxpool":
                stride = _positive(section, "stride", 1)
                kernel = _positive(section, "size", stride)
                padding = section.integer("padding", kernel - 1)
                layers.append(MaxPool(f"pool{number}", source, kernel, stride, padding))
            case "reorg":
                layers.append(Reorg(f"reorg{number}", source, _positive(section, "stride", 1)))
            case "route":
                sources = _route(section, outputs)
                if len(sources) == 1:
                    outputs.append(sources[0])
                    continue
                layers.append(Concatenation(f"route{number}", sources))
            case _:
                raise section.error("a detector ends with its [region] and has no such layer before it")
        outputs.append(layers[-1].name)
    return layers


_PREFIX = {"convolutional": "conv", "maxpool": "pool"}


def _convolution(section: Section, name: str, source: str) -> Convolution:
    kernel = _positive(section, "size", 1)
    activation = section.options.get("activation", "logistic")
    if activation not in ("leaky", "linear"):
        raise section.error(f"activation={activation} is not supported; it must be leaky or linear")
    return Convolution(
        name,
        source,
        _positive(section, "filters", 1),
        kernel,
        _positive(section, "stride", 1),
        kernel // 2 if section.integer("pad", 0) else section.integer("padding", 0),
        _positive(section, "groups", 1),
        bool(section.integer("batch_normalize", 0)),
        "leaky" if activation == "leaky" else "linear",
    )


def _positive(section: Section, key: str, default: int) -> int:
    value = section.integer(key, default)
    if value < 1:
        raise section.error(f"{key}={value} must be at least 1")
    return value


def _route(section: Section, outputs: list[str]) -> tuple[str, ...]:
    picks = section.integers("layers")
    if "groups" in section.options:
        raise section.error("groups in a route are not supported")
    if not picks:
        raise section.error("layers= must name at least one layer")
    indices = [pick if pick >= 0 else len(outputs) + pick for pick in picks]
    for pick, index in zip(picks, indices, strict=True):
        if not 0 <= index < len(outputs):
            raise section.error(f"layers={section.options['layers']}: there is no layer {pick} before this one")
    return tuple(outputs[index] for index in indices)


def _region(section: Section) -> tuple[tuple[tuple[float, float], ...], int]:
    _kind(section)
    if "tree" in section.options:
        raise section.error("a class tree (YOLO9000) is not supported")
    if section.integer("coords", 4) != 4 or section.integer("softmax", 0) != 1:
        raise section.error("coords must be 4 and softmax 1, as in every YOLOv2 cfg")
    number, classes = _positive(section, "num", 1), _positive(section, "classes", 20)
    flat = section.floats("anchors")
    if len(flat) != 2 * number or min(flat) <= 0:
        raise section.error(f"num={number} needs {2 * number} positive anchor sizes, anchors= has {len(flat)} values")
    return tuple(zip(flat[::2], flat[1::2], strict=True)), classes


def _input_size(net: Section, layers: list[Layer]) -> tuple[int, int]:
    height, width = _positive(net, "height", 0), _positive(net, "width", 0)
    stride = map_shapes(layers)[layers[-1].name].stride
    if height % stride or width % stride:
        raise net.error(f"height={height} and width={width} must be multiples of {stride}")
    return height, width
