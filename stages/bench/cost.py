"""What a network costs before it is run: parameters, operations, bytes."""

from dataclasses import dataclass

import torch
from safetensors.torch import save
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True, slots=True)
class Cost:
    """parameters: all of them, running statistics are none; gflop: 10⁹ operations for one picture of height × width;
    nbytes: the tensors as one safetensors file, running statistics included, in the type they have now."""

    parameters: int
    gflop: float
    height: int
    width: int
    nbytes: int


def network_cost(network: nn.Module, height: int, width: int) -> Cost:
    """The cost of a network that takes float pictures [1, 3, height, width].

    Operations are those of convolutions and matrix products, twice the multiply-accumulates, as Darknet counts them.
    They are counted during one forward pass on the device and in the type of the parameters; the network is left as it
    was, running statistics and training mode included.
    """
    return Cost(
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        gflop=_operations(network, height, width) / 1e9,
        height=height,
        width=width,
        nbytes=len(save({name: tensor.contiguous() for name, tensor in network.state_dict().items()})),
    )


def _operations(network: nn.Module, height: int, width: int) -> int:
    sample = next(network.parameters())
    picture_13HW = torch.zeros(1, 3, height, width, device=sample.device, dtype=sample.dtype)
    was_training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(picture_13HW)
    finally:
        for module in was_training:
            module.training = True
    return int(counter.get_total_flops())
