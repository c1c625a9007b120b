import pytest
import torch
from torch import Tensor, nn

from stages.student.ema import ExponentialMovingAverage


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4))


def train_a_little(module: nn.Module, seed: int) -> None:
    """Changes parameters, running statistics and the counter of batches."""
    generator = torch.Generator().manual_seed(seed)
    module(torch.randn(2, 3, 5, 5, generator=generator))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator))


def averaged(average: ExponentialMovingAverage) -> dict[str, Tensor]:
    module = network(99)
    average.copy_to(module)
    return dict(module.state_dict())


def test_it_starts_as_a_copy_of_its_own() -> None:
    module = network()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    average = ExponentialMovingAverage(module)
    train_a_little(module, 1)
    for name, value in averaged(average).items():
        assert torch.equal(value, before[name])


def test_it_is_the_weighted_sum_with_a_decay_that_warms_up() -> None:
    module = network()
    average = ExponentialMovingAverage(module, decay=0.15)
    expected = {name: value.clone().double() for name, value in module.state_dict().items()}
    for step, decay in enumerate([1 / 10, 0.15, 0.15]):  # 2/11 and 3/12 are above 0.15
        train_a_little(module, step)
        average.update(module)
        for name, value in module.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * value.double()
    result = averaged(average)
    for name in ("0.weight", "1.weight", "1.bias", "1.running_mean", "1.running_var"):
        torch.testing.assert_close(result[name].double(), expected[name], rtol=1e-5, atol=1e-6)
    assert result["1.num_batches_tracked"] == 3


def test_the_followed_module_is_left_alone() -> None:
    module = network()
    average = ExponentialMovingAverage(module)
    train_a_little(module, 1)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    average.update(module)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_a_resumed_average_goes_on_bit_for_bit() -> None:
    module = network()
    average = ExponentialMovingAverage(module, decay=0.9)
    train_a_little(module, 1)
    average.update(module)
    state = {name: value.clone() for name, value in average.state_dict().items()}
    resumed = ExponentialMovingAverage(network(5), decay=0.9)
    resumed.load_state_dict(state)
    for step in range(2, 5):
        train_a_little(module, step)
        average.update(module)
        resumed.update(module)
    ours, theirs = average.state_dict(), resumed.state_dict()
    assert set(ours) == set(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert not torch.equal(ours["average.0.weight"], state["average.0.weight"])


def test_the_state_of_another_network_is_refused() -> None:
    average = ExponentialMovingAverage(network())
    other = ExponentialMovingAverage(nn.Conv2d(3, 4, 3)).state_dict()
    with pytest.raises(ValueError, match="another network"):
        average.load_state_dict(other)


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_decay_that_averages_nothing_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match=r"in \[0, 1\)"):
        ExponentialMovingAverage(network(), decay)
