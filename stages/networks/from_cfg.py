"""Darknet's networks and weights as detectors, and as the beginning of others."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch

from data.darknet.cfg import read_names, read_text
from data.darknet.weights import ConvolutionArrays, read_convolutions, read_leading_convolutions, read_weights
from data.errors import RequestError
from stages.networks.cfg_layers import convolution_shapes, leading_convolutions, read_network
from stages.networks.model import empty_detector
from stages.networks.network import ConvolutionBlock, Detector
from stages.networks.spec import DarknetConfig, DetectorSpec

DARKNET_EPS = 1e-6


@dataclass(frozen=True, slots=True)
class DarknetModel:
    """A Darknet detector, in inference mode on the CPU; its cfg's input size in pixels; its files' SHA-256 in hex."""

    detector: Detector
    input_height: int
    input_width: int
    weights_sha256: str
    cfg_sha256: str


def load_darknet(cfg: Path, weights: Path, names: Path | None = None) -> DarknetModel:
    """Load a YOLOv2-family detector. Without a names file the classes are called "0", "1", … .

    RequestError if a file is absent or unreadable, the cfg has a layer or option that is not supported, the names are
    not as many as the cfg's classes, or the weights are not exactly as long as the cfg's layers take.
    """
    cfg_text = read_text(cfg)
    network = read_network(cfg_text, str(cfg))
    if names is None:
        classes = tuple(str(index) for index in range(network.classes))
    else:
        classes = read_names(names)
        if len(classes) != network.classes:
            raise RequestError(
                f"{names} has {len(classes)} class names, but {cfg} has classes={network.classes}; they must agree."
            )
    file = read_weights(weights)
    arrays = read_convolutions(file, convolution_shapes(network.layers))
    detector = empty_detector(DetectorSpec(DarknetConfig(cfg_text), classes, network.anchors))
    for (_, block), values in zip(detector.convolutions(), arrays, strict=True):
        _copy(values, block)
    return DarknetModel(detector.eval(), network.input_height, network.input_width, _sha256(weights), _sha256(cfg))


def load_prefix(detector: Detector, weights: Path, cfg: Path | None = None) -> int:
    """Start a detector from a detector's or classifier's weights; returns how many convolutions were loaded.

    The file's convolutions are copied in order as long as filters, input channels, kernel and batch normalisation
    agree with the detector's. cfg describes the file (`.conv.N` files are cut from their classifier's). Without one
    the file must be cut from this very network: it must end exactly between two of the detector's convolutions.
    RequestError if the file does not have the size that its cfg (or the detector) allows, or nothing agrees.
    """
    own = convolution_shapes(detector.layers)
    shapes, more_may_follow = (own, False) if cfg is None else leading_convolutions(read_text(cfg), str(cfg))
    arrays = read_leading_convolutions(read_weights(weights), shapes, more_may_follow)
    loaded = 0
    for (_, block), values, theirs, ours in zip(detector.convolutions(), arrays, shapes, own, strict=False):
        if theirs != ours:
            break
        _copy(values, block)
        loaded += 1
    if not loaded:
        raise RequestError(
            f"{weights} has nothing for this {detector.spec.model}: already its first convolution differs in shape, "
            f"or the file has none."
        )
    return loaded


@torch.no_grad()
def _copy(values: ConvolutionArrays, block: ConvolutionBlock) -> None:
    block.convolution.weight.copy_(torch.from_numpy(values.kernel.copy()))
    bias = torch.from_numpy(values.bias.copy())
    if block.norm is None:
        assert block.convolution.bias is not None
        block.convolution.bias.copy_(bias)
        return
    assert values.scale is not None
    assert values.mean is not None
    assert values.variance is not None
    assert block.norm.running_mean is not None
    assert block.norm.running_var is not None
    assert block.norm.num_batches_tracked is not None
    block.norm.bias.copy_(bias)
    block.norm.weight.copy_(torch.from_numpy(values.scale.copy()))
    block.norm.running_mean.copy_(torch.from_numpy(values.mean.copy()))
    # Darknet divides by sqrt(variance) + 1e-6, torch by sqrt(running_var + eps): this makes them the same number.
    deviation = torch.from_numpy(values.variance.copy()).double().sqrt() + DARKNET_EPS
    block.norm.running_var.copy_(deviation**2 - block.norm.eps)
    block.norm.num_batches_tracked.zero_()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
