from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from stages.student.distillation_loss import DistillationConfig, distillation_loss
from stages.student.objective import ObjectiveConfig, objective
from stages.student.region_loss import RegionLossConfig, region_loss

ANCHORS_A2 = torch.tensor([(0.8, 0.9), (1.5, 2.5)])
CONFIG = ObjectiveConfig()


@dataclass(frozen=True)
class SomeTargets:
    boxes_BT4: Tensor
    labels_BT: Tensor
    labelled_B: Tensor
    teachers_SBAEHW: Tensor | None
    weights_SB: Tensor


@pytest.fixture
def raw() -> Tensor:
    return torch.randn(3, 2 * 7, 4, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()


@pytest.fixture
def targets() -> SomeTargets:
    """The first picture has a truth and soft labels, the second only a truth, the third only soft labels."""
    teacher = torch.rand(3, 2, 7, 4, 4, generator=torch.Generator().manual_seed(1))
    boxes, labels = torch.tensor([[[0.4, 0.4, 0.3, 0.3]]] * 2 + [[[0.0] * 4]]), torch.tensor([[0], [1], [-1]])
    return SomeTargets(boxes, labels, torch.tensor([True, True, False]), teacher[None], torch.tensor([[1.0, 0, 1]]))


def test_the_total_is_the_sum_of_the_named_terms_of_both_losses(raw: Tensor, targets: SomeTargets) -> None:
    assert targets.teachers_SBAEHW is not None
    total, terms = objective(raw, targets, ANCHORS_A2, CONFIG, prior_box=True)
    region = region_loss(
        raw, targets.boxes_BT4, targets.labels_BT, targets.labelled_B, ANCHORS_A2, CONFIG.region, prior_box=True
    )
    distillation = distillation_loss(
        raw, targets.teachers_SBAEHW[0], targets.weights_SB[0], ANCHORS_A2, CONFIG.distillation, CONFIG.region
    )
    assert set(terms) == {f"region/{name}" for name in region} | {f"distillation/{name}" for name in distillation}
    for name, term in terms.items():
        kind, short = name.split("/")
        assert torch.equal(term, (region if kind == "region" else distillation)[short])
        assert not term.requires_grad
    torch.testing.assert_close(total, sum(terms.values()))
    assert total.requires_grad


def test_the_prior_box_term_is_there_in_its_phase_only(raw: Tensor, targets: SomeTargets) -> None:
    assert "region/prior_box" in objective(raw, targets, ANCHORS_A2, CONFIG, prior_box=True)[1]
    assert "region/prior_box" not in objective(raw, targets, ANCHORS_A2, CONFIG, prior_box=False)[1]


def test_an_unlabelled_picture_contributes_only_the_teachers_terms(raw: Tensor, targets: SomeTargets) -> None:
    assert targets.teachers_SBAEHW is not None
    total, _ = objective(raw, targets, ANCHORS_A2, CONFIG, prior_box=True)
    (gradient,) = torch.autograd.grad(total, raw)
    teacher_alone = distillation_loss(
        raw, targets.teachers_SBAEHW[0], targets.weights_SB[0], ANCHORS_A2, CONFIG.distillation, CONFIG.region
    )
    (expected,) = torch.autograd.grad(torch.stack(list(teacher_alone.values())).sum(), raw)
    assert torch.equal(gradient[2], expected[2])
    assert not torch.equal(gradient[0], expected[0])


def test_without_labelled_pictures_there_is_no_region_loss(raw: Tensor, targets: SomeTargets) -> None:
    unlabelled = replace(targets, labelled_B=torch.zeros(3, dtype=torch.bool))
    _, terms = objective(raw, unlabelled, ANCHORS_A2, CONFIG, prior_box=True)
    assert set(terms) == {"distillation/objectness", "distillation/box", "distillation/class"}


@pytest.mark.parametrize("without", ["teacher", "valid"])
def test_without_soft_labels_there_is_no_distillation(raw: Tensor, targets: SomeTargets, without: str) -> None:
    fewer = (
        replace(targets, teachers_SBAEHW=None)
        if without == "teacher"
        else replace(targets, weights_SB=torch.zeros(1, 3))
    )
    _, terms = objective(raw, fewer, ANCHORS_A2, CONFIG, prior_box=False)
    assert set(terms) == {"region/no_object", "region/object", "region/box", "region/class"}


def test_the_losses_of_several_teachers_are_added_by_weight(raw: Tensor, targets: SomeTargets) -> None:
    assert targets.teachers_SBAEHW is not None
    other = torch.rand(targets.teachers_SBAEHW.shape, generator=torch.Generator().manual_seed(2))
    other[0, 2] = torch.nan  # this teacher has not seen the third picture
    weights = torch.tensor([[0.25, 0.0, 1.0], [0.75, 1.0, 0.0]])
    several = replace(targets, teachers_SBAEHW=torch.cat([targets.teachers_SBAEHW, other]), weights_SB=weights)
    _, terms = objective(raw, several, ANCHORS_A2, CONFIG, prior_box=False)
    each = [
        distillation_loss(raw, teacher, weight, ANCHORS_A2, CONFIG.distillation, CONFIG.region)
        for teacher, weight in ((targets.teachers_SBAEHW[0], weights[0]), (other[0], weights[1]))
    ]
    for name in ("objectness", "box", "class"):
        torch.testing.assert_close(terms[f"distillation/{name}"], each[0][name] + each[1][name])
        assert each[0][name] > 0
        assert each[1][name] > 0


def test_the_same_teacher_twice_by_half_is_that_teacher(raw: Tensor, targets: SomeTargets) -> None:
    assert targets.teachers_SBAEHW is not None
    halves = replace(
        targets,
        teachers_SBAEHW=targets.teachers_SBAEHW.repeat(2, 1, 1, 1, 1, 1),
        weights_SB=0.5 * targets.weights_SB.repeat(2, 1),
    )
    once, twice = (objective(raw, each, ANCHORS_A2, CONFIG, prior_box=False)[0] for each in (targets, halves))
    torch.testing.assert_close(twice, once)


def test_a_batch_with_neither_has_zero_loss_and_zero_gradient(raw: Tensor, targets: SomeTargets) -> None:
    empty = replace(targets, teachers_SBAEHW=None, labelled_B=torch.zeros(3, dtype=torch.bool))
    total, terms = objective(raw, empty, ANCHORS_A2, CONFIG, prior_box=True)
    total.backward()
    assert total == 0
    assert terms == {}
    assert raw.grad is not None
    assert torch.count_nonzero(raw.grad) == 0


def test_the_teachers_terms_take_the_region_layers_scales(raw: Tensor, targets: SomeTargets) -> None:
    _, once = objective(raw, targets, ANCHORS_A2, CONFIG, prior_box=False)
    heavier = ObjectiveConfig(RegionLossConfig(class_scale=2.0), DistillationConfig())
    _, twice = objective(raw, targets, ANCHORS_A2, heavier, prior_box=False)
    for name, term in once.items():
        torch.testing.assert_close(twice[name], term * (2 if name.endswith("/class") else 1))
