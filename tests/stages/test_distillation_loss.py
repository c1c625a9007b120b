import numpy as np
import pytest
import torch
from torch import Tensor

from stages.networks.region import activate
from stages.student.distillation_loss import DistillationConfig, distillation_loss
from stages.student.region_loss import RegionLossConfig

ANCHORS_A2 = torch.tensor([(0.8, 0.9), (1.5, 2.5)], dtype=torch.float64)
CLASSES = 3
SCALES = RegionLossConfig(object_scale=5.0, noobject_scale=0.7, class_scale=1.3, coord_scale=0.9)
PLAIN = DistillationConfig()
NAMES = ("objectness", "box", "class")


def random_raw(seed: int, batch: int = 2) -> Tensor:
    raw = np.random.default_rng(seed).normal(0, 1, (batch, 2 * (5 + CLASSES), 3, 4))
    return torch.from_numpy(raw).requires_grad_()


def soft_labels(seed: int, batch: int = 2) -> Tensor:
    """A teacher that kept every third slot or so."""
    entries_BAEHW = activate(random_raw(seed, batch).detach(), 2, CLASSES)
    kept = torch.from_numpy(np.random.default_rng(seed + 1).uniform(size=(batch, 2, 1, 3, 4)) < 0.35)
    return entries_BAEHW * kept


def loss(
    raw: Tensor,
    teacher: Tensor,
    config: DistillationConfig = PLAIN,
    weight: Tensor | None = None,
    scales: RegionLossConfig = SCALES,
) -> dict[str, Tensor]:
    weight = torch.ones(len(raw)) if weight is None else weight
    return distillation_loss(raw, teacher, weight, ANCHORS_A2, config, scales)


def gradient(term: Tensor, raw: Tensor) -> Tensor:
    """As [B, A, 5+K, H, W]."""
    (result,) = torch.autograd.grad(term, raw, retain_graph=True)
    return result.view(len(raw), 2, 5 + CLASSES, 3, 4)


@pytest.mark.parametrize("scaling", [True, False])
def test_gradients_are_the_equations_read_as_darknet_deltas(scaling: bool) -> None:
    raw, teacher = random_raw(0), soft_labels(1)
    terms = loss(raw, teacher, DistillationConfig(weight=0.6, objectness_scaling=scaling))
    student = activate(raw.detach(), 2, CLASSES)
    expected = {name: torch.zeros_like(teacher) for name in NAMES}
    for b, a, row, column in np.ndindex(2, 2, 3, 4):
        t, s = teacher[b, a, :, row, column], student[b, a, :, row, column]
        o_T = t[4]
        factor = o_T if scaling else float(o_T > 0)
        w = min(1.0, float(t[2].exp() * ANCHORS_A2[a, 0] / 4))
        h = min(1.0, float(t[3].exp() * ANCHORS_A2[a, 1] / 3))
        slope = s * (1 - s)
        slope[2:4] = 1
        delta = 0.6 * (t - s) * slope / 2
        expected["objectness"][b, a, 4, row, column] = -0.6 * (0.7 + o_T * (5 - 0.7)) * (t[4] - s[4]) / 4 / 2
        expected["box"][b, a, :4, row, column] = -factor * 0.9 * (2 - w * h) * delta[:4]
        expected["class"][b, a, 5:, row, column] = -factor * 1.3 * 0.6 * (t[5:] - s[5:]) / 2
    for name in NAMES:
        torch.testing.assert_close(gradient(terms[name], raw), expected[name], rtol=1e-10, atol=1e-13)


def test_every_term_is_zero_when_student_equals_teacher() -> None:
    raw = random_raw(2)
    terms = loss(raw, activate(raw.detach(), 2, CLASSES))
    for name in NAMES:
        assert terms[name].item() == pytest.approx(0, abs=1e-14)
        assert gradient(terms[name], raw).abs().max() < 1e-14
    other = loss(raw, activate(random_raw(3).detach(), 2, CLASSES))
    assert all(other[name] > 0.1 for name in NAMES)


def test_terms_are_linear_in_the_weight() -> None:
    raw, teacher = random_raw(4), soft_labels(5)
    once, thrice = loss(raw, teacher), loss(raw, teacher, DistillationConfig(weight=3.0))
    for name in NAMES:
        assert once[name] > 0
        torch.testing.assert_close(thrice[name], 3 * once[name])


def test_box_and_class_are_linear_in_the_teachers_objectness() -> None:
    raw, teacher = random_raw(6), soft_labels(7)
    doubled, unscaled = teacher.clone(), DistillationConfig(objectness_scaling=False)
    doubled[:, :, 4] *= 2
    for name in ("box", "class"):
        torch.testing.assert_close(loss(raw, doubled)[name], 2 * loss(raw, teacher)[name])
        torch.testing.assert_close(loss(raw, doubled, unscaled)[name], loss(raw, teacher, unscaled)[name])


@pytest.mark.parametrize("scaling", [True, False])
def test_a_slot_that_was_not_kept_has_neither_box_nor_class(scaling: bool) -> None:
    raw, teacher = random_raw(8), soft_labels(9)
    kept_BAHW = teacher[:, :, 4] > 0
    assert 0 < kept_BAHW.sum() < kept_BAHW.numel()
    terms = loss(raw, teacher, DistillationConfig(objectness_scaling=scaling))
    for name, entries in (("box", slice(0, 4)), ("class", slice(5, None))):
        touched_BAHW = (gradient(terms[name], raw)[:, :, entries] != 0).any(2)
        assert torch.equal(touched_BAHW, kept_BAHW)
    assert (gradient(terms["objectness"], raw)[:, :, 4] != 0).all()


def test_nothing_kept_teaches_background_everywhere() -> None:
    raw = random_raw(10)
    terms = loss(raw, torch.zeros(2, 2, 5 + CLASSES, 3, 4))
    background = 1 - raw.detach().view(2, 2, 5 + CLASSES, 3, 4)[:, :, 4].sigmoid()
    torch.testing.assert_close(terms["objectness"].detach(), 0.7 * 0.25 * -background.log().sum() / 2)
    assert terms["box"] == terms["class"] == 0


@pytest.mark.parametrize("o_T", [0.0, 1.0])
def test_a_student_that_is_certain_and_wrong_keeps_its_slope(o_T: float) -> None:
    """A squared error through the logistic would have lost it: the slot would stay wrong for good."""
    raw = torch.zeros(1, 2 * (5 + CLASSES), 3, 4)
    raw.view(1, 2, 5 + CLASSES, 3, 4)[:, :, 4] = 60.0 if o_T == 0 else -60.0
    raw.requires_grad_()
    teacher = torch.zeros(1, 2, 5 + CLASSES, 3, 4)
    teacher[:, :, 4] = o_T
    term = loss(raw, teacher)["objectness"]
    assert term.isfinite()
    scale = 5.0 if o_T else 0.7
    slope = gradient(term, raw)[:, :, 4]
    torch.testing.assert_close(slope, torch.full_like(slope, scale * 0.25 * (1 - 2 * o_T)))


def test_a_picture_without_soft_labels_contributes_exactly_nothing() -> None:
    raw, teacher = random_raw(11), soft_labels(12)
    teacher[1] = torch.nan  # what a row that was never written reads as
    terms = loss(raw, teacher, weight=torch.tensor([1.0, 0.0]))
    alone = loss(raw[:1], teacher[:1])
    for name in NAMES:
        gradient_BAEHW = gradient(terms[name], raw)
        assert torch.count_nonzero(gradient_BAEHW[0]) > 0
        assert torch.count_nonzero(gradient_BAEHW[1]) == 0
        torch.testing.assert_close(2 * terms[name], alone[name])


def test_a_weight_scales_a_pictures_terms_and_no_others() -> None:
    raw, teacher = random_raw(11), soft_labels(12)
    one, other, both = (loss(raw, teacher, weight=torch.tensor(w)) for w in ([1.0, 0.0], [0.0, 1.0], [0.5, 2.0]))
    for name in NAMES:
        torch.testing.assert_close(both[name], 0.5 * one[name] + 2 * other[name])


@pytest.mark.parametrize("off", NAMES)
def test_each_term_has_a_switch_that_leaves_the_others_alone(off: str) -> None:
    raw, teacher = random_raw(13), soft_labels(14)
    switches = {"objectness": off != "objectness", "box": off != "box", "classes": off != "class"}
    whole, less = loss(raw, teacher), loss(raw, teacher, DistillationConfig(**switches))
    assert set(less) == set(NAMES) - {off}
    assert all(torch.equal(less[name], whole[name]) for name in less)


def test_probabilities_are_normalised_again_after_float16() -> None:
    raw, teacher = random_raw(15), soft_labels(16)
    rounded = teacher.clone()
    rounded[:, :, 5:] *= 0.998
    torch.testing.assert_close(loss(raw, rounded)["class"], loss(raw, teacher)["class"])
    stored = loss(raw, teacher.half())
    for name in NAMES:
        assert stored[name].dtype == torch.float64
        torch.testing.assert_close(stored[name], loss(raw, teacher)[name], rtol=5e-3, atol=1e-3)


def test_a_certain_teacher_has_a_finite_class_term() -> None:
    raw, teacher = random_raw(17), torch.zeros(2, 2, 5 + CLASSES, 3, 4, dtype=torch.float64)
    teacher[0, 1, 4, 2, 1] = 0.5
    teacher[0, 1, 5 + 2, 2, 1] = 1.0
    logits = raw.detach().view(2, 2, 5 + CLASSES, 3, 4)[0, 1, 5:, 2, 1]
    expected = -0.5 * 1.3 * logits.log_softmax(0)[2] / 2
    torch.testing.assert_close(loss(raw, teacher)["class"].detach(), expected)


def test_a_box_larger_than_the_input_never_gets_a_negative_weight() -> None:
    raw, teacher = random_raw(18), torch.zeros(2, 2, 5 + CLASSES, 3, 4, dtype=torch.float64)
    teacher[0, 0, 2:5, 1, 1] = torch.tensor([3.0, 3.0, 0.9])  # a dozen times the area of the input
    term = loss(raw, teacher)["box"]
    student = activate(raw.detach(), 2, CLASSES)[0, 0, :4, 1, 1]
    error = (teacher[0, 0, :4, 1, 1] - student).square().sum()
    torch.testing.assert_close(term.detach(), 0.9 * 0.9 * 0.5 * error / 2)


def test_gradcheck_in_float64() -> None:
    teacher = soft_labels(20)
    assert torch.autograd.gradcheck(lambda raw: tuple(loss(raw, teacher).values()), random_raw(19))


def test_half_precision_is_computed_in_float32() -> None:
    raw, teacher = random_raw(21).detach().bfloat16(), soft_labels(22)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = loss(raw, teacher.float())
    full = loss(raw.double(), teacher)
    for name in NAMES:
        assert half[name].dtype == torch.float32
        torch.testing.assert_close(half[name].double(), full[name], rtol=1e-5, atol=1e-6)


def test_soft_labels_of_another_grid_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 2, 8, 3, 3\) do not fit the output \(2, 2, 8, 3, 4\)"):
        loss(random_raw(23), torch.zeros(2, 2, 8, 3, 3))
