"""Which parameters decay."""

from typing import Any

from torch import nn


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two parameter groups for a torch optimiser: convolution kernels, which decay, and the rest, which don't.

    Darknet decays weights only, never biases or batch-norm scales (src/convolutional_layer.c,
    `update_convolutional_layer`). Frozen parameters are in neither. The order is the module's, so an optimiser's state
    fits again on resume.
    """
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return [
        {"params": [parameter for parameter in parameters if parameter.ndim > 1], "weight_decay": weight_decay},
        {"params": [parameter for parameter in parameters if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
