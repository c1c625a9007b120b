"""The one module that runs every detector of the project, whatever its layers."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from data.errors import RequestError
from stages.networks.layers import (
    INPUT,
    Concatenation,
    Convolution,
    Layer,
    MaxPool,
    Reorg,
    SpaceToDepth,
    map_shapes,
)
from stages.networks.region import BOX_ENTRIES
from stages.networks.spec import DetectorSpec

NORM_EPS = 1e-6
"""With it torch's sqrt(var + eps) is Darknet's sqrt(var) + 1e-6 for every variance but those near zero; the reader of
Darknet files shifts the variances so that it is exact there too."""

NORM_MOMENTUM = 0.1
"""torch's default, not Darknet's 0.01: short trainings validate after some dozen steps, when statistics that move by a
hundredth would still hold most of their initial value. A batch has thousands of cells per channel: 0.1 is not noisy."""

LEAKY_SLOPE = 0.1

HEAD_SCALE = 0.1
PRIOR_OBJECTNESS = 0.1
"""A fresh head, its kernels a tenth of He's spread, predicts anchors in the cells' centres and objectness 0.1 (after
Lin et al., Focal Loss, section 3.3). With Darknet's He-normal head and objectness 0.5 the first steps push every slot
so far towards 0 that the logistic has no slope left: docs/decisions/0007-start-of-the-head.md has it measured."""


class ConvolutionBlock(nn.Module):
    """One `Convolution` layer with its parameters."""

    def __init__(self, layer: Convolution, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(
            channels,
            layer.filters,
            layer.kernel,
            layer.stride,
            layer.padding,
            groups=layer.groups,
            bias=not layer.batch_norm,
        )
        self.norm = nn.BatchNorm2d(layer.filters, eps=NORM_EPS, momentum=NORM_MOMENTUM) if layer.batch_norm else None
        self.leaky = layer.activation == "leaky"

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BCHW: Tensor = self.convolution(x_BCHW)
        if self.norm is not None:
            y_BCHW = self.norm(y_BCHW)
        # In place: neither convolution nor batch norm needs its output for the gradient, and no one else has seen it.
        return functional.leaky_relu_(y_BCHW, LEAKY_SLOPE) if self.leaky else y_BCHW

    def initialise(self, generator: torch.Generator | None) -> None:
        """He-normal kernels, as Darknet's make_convolutional_layer; bias and shift 0, scale 1."""
        weight = self.convolution.weight
        nn.init.normal_(weight, std=(2 / weight[0].numel()) ** 0.5, generator=generator)
        if self.convolution.bias is not None:
            nn.init.zeros_(self.convolution.bias)
        if self.norm is not None:
            self.norm.reset_parameters()


class Detector(nn.Module):
    """A detector of the YOLOv2 family: pictures in, the region head's raw output out.

    Built by `stages.networks.model` or `stages.networks.from_cfg.load_darknet`. The
    last layer is the head. Taps are layer names; a convolution's tap is what leaves its activation.
    """

    def __init__(self, spec: DetectorSpec, layers: Sequence[Layer]) -> None:
        """RequestError if the layers are no network, or do not end in the channels that the spec's head needs."""
        super().__init__()
        self.spec = spec
        self.layers = tuple(layers)
        self.shapes = map_shapes(self.layers)
        head = self.shapes[self.layers[-1].name]
        wanted = len(spec.anchors) * (BOX_ENTRIES + len(spec.classes))
        if head.channels != wanted:
            raise RequestError(
                f"The network ends in {head.channels} channels, but {len(spec.anchors)} anchors and "
                f"{len(spec.classes)} classes need {wanted}: anchors x (5 + classes)."
            )
        self.stride = head.stride
        channels = {INPUT: 3} | {name: shape.channels for name, shape in self.shapes.items()}
        self.blocks = nn.ModuleDict(
            {
                layer.name: ConvolutionBlock(layer, channels[layer.source])
                for layer in self.layers
                if isinstance(layer, Convolution)
            }
        )
        self._last_reader = {name: index for index, layer in enumerate(self.layers) for name in layer.sources}

    @property
    def anchors(self) -> tuple[tuple[float, float], ...]:
        """Width and height of each anchor, in cells of the grid."""
        return self.spec.anchors

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the head's class entries."""
        return self.spec.classes

    @property
    def tap_names(self) -> tuple[str, ...]:
        """The layers whose output `forward_with_taps` can return."""
        return tuple(layer.name for layer in self.layers)

    def check_taps(self, taps: Sequence[str]) -> None:
        """RequestError naming the first tap that does not exist, and the known ones."""
        for tap in taps:
            if tap not in self.shapes:
                raise RequestError(
                    f"The network has no layer {tap!r} to take features from; it has: {', '.join(self.shapes)}."
                )

    def convolutions(self) -> list[tuple[Convolution, ConvolutionBlock]]:
        """Every convolution with its parameters, in the order of a Darknet weights file."""
        return [(layer, self.block(layer.name)) for layer in self.layers if isinstance(layer, Convolution)]

    def block(self, name: str) -> ConvolutionBlock:
        """The convolution called `name`. KeyError if there is none."""
        block = self.blocks[name]
        assert isinstance(block, ConvolutionBlock)
        return block

    def initialise(self, generator: torch.Generator | None = None) -> None:
        """Fresh random weights, from `generator` or torch's global one; the head as HEAD_SCALE says."""
        for _, block in self.convolutions():
            block.initialise(generator)
        head = self.block(self.layers[-1].name).convolution
        with torch.no_grad():
            head.weight *= HEAD_SCALE
        if head.bias is not None:
            objectness = torch.arange(len(self.anchors)) * (BOX_ENTRIES + len(self.classes)) + BOX_ENTRIES - 1
            with torch.no_grad():
                head.bias[objectness] = math.log(PRIOR_OBJECTNESS / (1 - PRIOR_OBJECTNESS))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Pictures [B, 3, H, W], RGB in [0, 1], sides multiples of `stride`, to raw_BCHW [B, A·(5+K), H/32, W/32]."""
        return self.forward_with_taps(x_BCHW, ())[0]

    def forward_with_taps(self, x_BCHW: Tensor, taps: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """`forward`'s output, and the output of every layer in `taps` by name. RequestError for an unknown tap.

        A map that no later layer reads is let go at once, so without gradients the memory is that of the widest step.
        """
        self.check_taps(taps)
        tapped: dict[str, Tensor] = {}
        maps = {INPUT: x_BCHW}
        for index, layer in enumerate(self.layers):
            output = self._run(layer, [maps[name] for name in layer.sources])
            for name in set(layer.sources):
                if self._last_reader[name] == index:
                    del maps[name]
            maps[layer.name] = output
            if layer.name in taps:
                tapped[layer.name] = output
        return maps[self.layers[-1].name], tapped

    def _run(self, layer: Layer, inputs: list[Tensor]) -> Tensor:
        match layer:
            case Convolution():
                output: Tensor = self.blocks[layer.name](inputs[0])
                return output
            case MaxPool():
                return max_pool(inputs[0], layer.kernel, layer.stride, layer.padding)
            case Reorg():
                return reorg(inputs[0], layer.stride)
            case SpaceToDepth():
                return functional.pixel_unshuffle(inputs[0], layer.stride)
            case Concatenation():
                return torch.cat(inputs, dim=1)


def max_pool(x_BCHW: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    """`layers.MaxPool`: only the padding that some window reaches is added."""
    before = padding // 2
    rows, columns = (_padding_after(size, kernel, stride, padding) for size in x_BCHW.shape[-2:])
    if before or rows or columns:
        x_BCHW = functional.pad(x_BCHW, (before, columns, before, rows), value=float("-inf"))
    return functional.max_pool2d(x_BCHW, kernel, stride)


def _padding_after(size: int, kernel: int, stride: int, padding: int) -> int:
    windows = (size + padding - kernel) // stride + 1
    return max((windows - 1) * stride + kernel - padding // 2 - size, 0)


def reorg(x_BCHW: Tensor, stride: int) -> Tensor:
    """Darknet's reorg [B, C, H, W] to [B, C·s², H/s, W/s] (src/blas.c, reorg_cpu, as the layer calls it).

    Darknet reads the map as if it had C/s² channels of s times the rows and columns: which is why the order is not that
    of pixel-unshuffle. C must be a multiple of s², H and W of s.
    """
    batch, channels, rows, columns = x_BCHW.shape
    split = x_BCHW.reshape(batch, channels // stride**2, rows, stride, columns, stride)
    return split.permute(0, 3, 5, 1, 2, 4).reshape(batch, channels * stride**2, rows // stride, columns // stride)
