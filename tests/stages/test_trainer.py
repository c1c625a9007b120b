"""One step, and the state that makes the next one."""

import pytest
import torch

from data.errors import RequestError, WorkLeftError
from stages.networks.f_yolo import FYoloConfig
from stages.networks.model import build_detector
from stages.networks.spec import own_spec
from stages.student.objective import ObjectiveConfig
from stages.student.samples import Batch
from stages.student.trainer import OptimiserConfig, Trainer

CPU = torch.device("cpu")


def _trainer(config: OptimiserConfig, seed: int = 0) -> Trainer:
    spec = own_spec("f-yolo", ("a", "b"), FYoloConfig(width=0.05))
    detector = build_detector(spec, torch.Generator().manual_seed(seed))
    return Trainer(detector, ObjectiveConfig(), config, device=CPU, precision="float32")


def _batch(seed: int) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    boxes = torch.rand(4, 2, 4, generator=draw) * 0.4 + 0.2
    return Batch(
        torch.rand(4, 3, 64, 64, generator=draw),
        boxes,
        torch.randint(0, 2, (4, 2), generator=draw),
        torch.ones(4, dtype=torch.bool),
        None,
        torch.zeros(0, 4),
        0,
        0,
        (),
    )


@pytest.mark.parametrize("ema", [None, 0.9])
def test_a_restored_state_takes_the_very_same_steps(ema: float | None) -> None:
    config = OptimiserConfig(ema_decay=ema, clip_norm=10.0)
    straight = _trainer(config)
    for step in range(3):
        straight.step(_batch(step), 1e-3, prior_box=step == 0)
    state = {name: value.clone() for name, value in straight.state().items()}
    restored = _trainer(config, seed=99)
    restored.load_state(state)
    for step in range(3, 5):
        first = straight.step(_batch(step), 1e-3, prior_box=False)
        assert first == restored.step(_batch(step), 1e-3, prior_box=False)
    after = restored.state()
    assert straight.state().keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in straight.state().items())


def test_a_loss_that_is_not_finite_leaves_the_weights_as_they_were() -> None:
    trainer = _trainer(OptimiserConfig())
    with torch.no_grad():
        next(iter(trainer.detector.parameters())).fill_(float("nan"))
    before = {name: value.clone() for name, value in trainer.detector.named_parameters()}
    with pytest.raises(WorkLeftError, match="not finite"):
        trainer.step(_batch(0), 1e-3, prior_box=False)
    for name, value in trainer.detector.named_parameters():
        assert torch.equal(value, before[name]) or bool(value.isnan().any())


def test_the_gradient_is_clipped_to_its_bound() -> None:
    free = _trainer(OptimiserConfig(momentum=0.0, weight_decay=0.0))
    clipped = _trainer(OptimiserConfig(momentum=0.0, weight_decay=0.0, clip_norm=0.01))
    start = [value.detach().clone() for value in free.detector.parameters()]
    norm = free.step(_batch(0), 1.0, prior_box=False)["gradient_norm"]
    clipped.step(_batch(0), 1.0, prior_box=False)

    def moved(trainer: Trainer) -> float:
        steps = [(a - b).square().sum() for a, b in zip(trainer.detector.parameters(), start, strict=True)]
        return float(torch.stack(steps).sum().sqrt().detach())

    assert moved(free) == pytest.approx(norm, rel=1e-3)
    assert moved(clipped) == pytest.approx(0.01, rel=1e-3)


def test_with_an_average_the_average_is_what_is_evaluated() -> None:
    trainer = _trainer(OptimiserConfig(ema_decay=0.99))
    for step in range(3):
        trainer.step(_batch(step), 1e-2, prior_box=False)
    averaged, present = trainer.evaluated().state_dict(), trainer.detector.state_dict()
    assert trainer.ema is not None
    kept = trainer.ema.state_dict()
    assert all(torch.equal(value, kept[f"average.{name}"]) for name, value in averaged.items())
    assert any(not torch.equal(averaged[name], present[name]) for name in averaged)


def test_half_precision_training_and_foreign_checkpoints_are_refused() -> None:
    with pytest.raises(RequestError, match="float16"):
        Trainer(
            _trainer(OptimiserConfig()).detector, ObjectiveConfig(), OptimiserConfig(), device=CPU, precision="float16"
        )
    with pytest.raises(RequestError, match="not of this student"):
        _trainer(OptimiserConfig()).load_state({"model.nothing": torch.zeros(1)})
