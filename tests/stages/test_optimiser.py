from torch import nn
from torch.optim import SGD

from stages.student.optimiser import parameter_groups


def test_only_convolution_kernels_decay() -> None:
    first, norm, last = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)
    decaying, rest = parameter_groups(nn.Sequential(first, norm, last), 5e-4)
    assert decaying["weight_decay"] == 5e-4
    assert rest["weight_decay"] == 0
    assert [id(parameter) for parameter in decaying["params"]] == [id(first.weight), id(last.weight)]
    assert [id(parameter) for parameter in rest["params"]] == [id(norm.weight), id(norm.bias), id(last.bias)]


def test_frozen_parameters_are_left_out_and_torch_takes_the_groups() -> None:
    first, last = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 1)
    first.requires_grad_(False)
    optimiser = SGD(parameter_groups(nn.Sequential(first, last), 0.1), lr=1.0)
    assert [len(group["params"]) for group in optimiser.param_groups] == [1, 1]
