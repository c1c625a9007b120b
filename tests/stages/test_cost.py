"""Parameters, operations and bytes, against counts by hand and the figures known for the published networks."""

from itertools import pairwise

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from stages.bench.cost import network_cost
from stages.networks.f_yolo import FYoloConfig
from stages.networks.model import build_detector
from stages.networks.spec import own_spec


def block(channels_in, channels_out, kernel):
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.LeakyReLU(0.1),
    )


def tiny_yolo():
    """Tiny-YOLOv2 for 20 classes, from its table; the pooling of stride 1 keeps 13 × 13."""
    widths = [3, 16, 32, 64, 128, 256, 512]
    layers = []
    for channels_in, channels_out in pairwise(widths):
        layers += [block(channels_in, channels_out, 3), nn.MaxPool2d(2)]
    layers[-1] = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.MaxPool2d(2, 1))
    return nn.Sequential(*layers, block(512, 1024, 3), block(1024, 1024, 3), nn.Conv2d(1024, 125, 1))


def test_a_network_counted_by_hand():
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),  # 8·3·9 weights, at 10 × 12 places
        nn.BatchNorm2d(8),  # 8 + 8, and 8 + 8 running statistics and a counter that are no parameters
        nn.Conv2d(8, 6, 3, stride=2, padding=1, groups=2),  # 6·4·9 + 6, at 5 × 6 places
    )
    cost = network_cost(network, 10, 12)
    assert cost.parameters == 216 + 16 + 216 + 6
    assert cost.gflop * 1e9 == 2 * (216 * 10 * 12 + 216 * 5 * 6)
    assert (cost.height, cost.width) == (10, 12)


def test_tiny_yolo_has_the_published_cost():
    cost = network_cost(tiny_yolo(), 416, 416)
    assert cost.parameters == 15_861_773
    assert cost.gflop == pytest.approx(6.97, abs=0.005)


@pytest.mark.parametrize(
    ("model", "config", "parameters", "gflop"),
    [
        ("f-yolo", FYoloConfig(reading="A"), 8.52, 4.52),
        ("f-yolo", FYoloConfig(reading="B"), 8.58, 4.53),
        ("tiny-yolo", None, 15.86, 6.97),
        ("yolov2", None, 50.66, 29.36),
    ],
)
def test_the_projects_networks_have_the_known_cost(model, config, parameters, gflop):
    network = build_detector(own_spec(model, tuple(f"class {index}" for index in range(20)), config))
    cost = network_cost(network, 416, 416)
    assert cost.parameters / 1e6 == pytest.approx(parameters, abs=0.005)
    assert cost.gflop == pytest.approx(gflop, abs=0.005)


def test_bytes_are_those_of_the_file(tmp_path):
    network = block(3, 5, 3)
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    assert network_cost(network, 8, 8).nbytes == (tmp_path / "model.safetensors").stat().st_size


def test_counting_leaves_the_network_as_it_was():
    network = nn.Sequential(block(3, 4, 3), block(4, 4, 3)).train()
    network[1].eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network_cost(network, 8, 8)
    assert network.training
    assert network[0][1].training
    assert not network[1][1].training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_a_network_in_half_precision_is_half_the_bytes_for_the_same_operations():
    single, half = network_cost(nn.Conv2d(3, 64, 3), 8, 8), network_cost(nn.Conv2d(3, 64, 3).bfloat16(), 8, 8)
    assert half.gflop == single.gflop
    assert single.nbytes - half.nbytes == pytest.approx(single.parameters * 2, abs=16)  # the header names the type
