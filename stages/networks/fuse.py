"""Folding batch normalisation into the convolutions before it, for inference."""

from dataclasses import replace

import torch

from stages.networks.layers import Convolution
from stages.networks.network import Detector


@torch.no_grad()
def fuse(detector: Detector) -> Detector:
    """A copy of the detector in inference mode whose convolutions have a bias and no batch normalisation.

    γ·(K∗x − μ)/√(σ²+ε) + β = (γK/√(σ²+ε))∗x + (β − γμ/√(σ²+ε)), computed in float64; same layers, names and taps, on
    the same device. It cannot be trained on or saved, as it is no longer what its spec says.
    """
    layers = [
        replace(layer, batch_norm=False) if isinstance(layer, Convolution) else layer for layer in detector.layers
    ]
    device = next(detector.parameters()).device
    with torch.device("meta"):
        fused = Detector(detector.spec, layers)
    fused.to_empty(device=device)
    for layer, block in detector.convolutions():
        target = fused.block(layer.name).convolution
        assert target.bias is not None
        weight, norm = block.convolution.weight, block.norm
        if norm is None:
            assert block.convolution.bias is not None
            target.weight.copy_(weight)
            target.bias.copy_(block.convolution.bias)
            continue
        assert norm.running_mean is not None
        assert norm.running_var is not None
        factor = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
        target.weight.copy_(weight.double() * factor[:, None, None, None])
        target.bias.copy_(norm.bias.double() - norm.running_mean.double() * factor)
    return fused.eval().requires_grad_(False)
