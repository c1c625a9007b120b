import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stages.networks.region import encode_boxes
from stages.student import region_loss as module
from stages.student.region_loss import RegionLossConfig, region_loss
from tests.reference_region_loss import Truths, region_deltas_slowly

ANCHORS = [(0.8, 0.9), (1.5, 2.5), (2.5, 1.2)]
ANCHORS_A2 = torch.tensor(ANCHORS, dtype=torch.float64)
CLASSES = 3


def padded(pictures: list[Truths]) -> tuple[Tensor, Tensor]:
    longest = max(map(len, pictures), default=0)
    boxes_BT4 = torch.zeros(len(pictures), longest, 4, dtype=torch.float64)
    labels_BT = torch.full((len(pictures), longest), -1)
    for b, truths in enumerate(pictures):
        for t, (box, label) in enumerate(truths):
            boxes_BT4[b, t] = torch.tensor(box, dtype=torch.float64)
            labels_BT[b, t] = label
    return boxes_BT4, labels_BT


def random_raw(rng: np.random.Generator, batch: int, rows: int = 4, columns: int = 5) -> Tensor:
    raw = torch.from_numpy(rng.normal(0, 0.4, (batch, len(ANCHORS) * (5 + CLASSES), rows, columns)))
    return raw.requires_grad_()


def random_truths(rng: np.random.Generator, count: int, rows: int = 4, columns: int = 5) -> Truths:
    """Near the centres of cells and the sizes of anchors, so that predictions overlap them and slots are shared."""
    truths = []
    for _ in range(count):
        anchor_w, anchor_h = ANCHORS[rng.integers(len(ANCHORS))]
        w, h = anchor_w / columns * math.exp(rng.normal(0, 0.1)), anchor_h / rows * math.exp(rng.normal(0, 0.1))
        x, y = (rng.integers(2) + rng.uniform()) / columns, (rng.integers(2) + rng.uniform()) / rows
        truths.append(((x, y, w, h), int(rng.integers(CLASSES))))
    return truths


def all_labelled(batch: int) -> Tensor:
    return torch.ones(batch, dtype=torch.bool)


@given(seed=st.integers(0, 2**31), rescore=st.booleans(), prior_box=st.booleans())
@settings(max_examples=25, deadline=None)
def test_the_gradient_of_every_term_is_darknets_delta(seed: int, rescore: bool, prior_box: bool) -> None:
    rng = np.random.default_rng(seed)
    config = RegionLossConfig(5.0, 0.7, 1.3, 0.9, 0.4, rescore, 0.02)
    pictures = [random_truths(rng, int(rng.integers(7))) for _ in range(2)]
    raw = random_raw(rng, 2)
    slow = [
        region_deltas_slowly(raw[b].detach().numpy(), truths, ANCHORS, config, prior_box)
        for b, truths in enumerate(pictures)
    ]
    terms = region_loss(raw, *padded(pictures), all_labelled(2), ANCHORS_A2, config, prior_box=prior_box)
    assert set(terms) == {"no_object", "object", "box", "class"} | ({"prior_box"} if prior_box else set())
    for name, term in terms.items():
        (gradient,) = torch.autograd.grad(term, raw, retain_graph=True)
        expected = np.stack([np.where(term_of == name, -delta / 2, 0.0) for delta, term_of in slow])
        np.testing.assert_allclose(gradient.numpy(), expected, rtol=1e-10, atol=1e-13, err_msg=name)


def test_slots_that_overlap_a_truth_have_no_objectness_gradient() -> None:
    truths = [((0.5, 0.5, 0.5, 0.9), 0)]
    raw = torch.zeros(1, len(ANCHORS) * (5 + CLASSES), 3, 3, dtype=torch.float64, requires_grad=True)
    anchors = ((1.5, 2.7), (1.4, 2.6), (0.5, 0.5))
    loss = region_loss(
        raw,
        *padded([truths]),
        all_labelled(1),
        torch.tensor(anchors, dtype=torch.float64),
        RegionLossConfig(),
        prior_box=False,
    )
    (gradient,) = torch.autograd.grad(loss["no_object"], raw)
    objectness_AHW = gradient.view(len(ANCHORS), 5 + CLASSES, 3, 3)[:, 4]
    assert objectness_AHW[0, 1, 1] == 0  # the object's own slot
    assert objectness_AHW[1, 1, 1] == 0  # another anchor's box, which overlaps it nearly as well
    assert (objectness_AHW != 0).sum() == objectness_AHW.numel() - 2


def test_the_value_of_every_term_counted_by_hand() -> None:
    # One cell, one anchor, two classes: σ = ½ throughout, the decoded box is the anchor in the middle of the cell.
    raw = torch.zeros(1, 7, 1, 1, dtype=torch.float64)
    anchor = torch.tensor([[0.5, 0.5]], dtype=torch.float64)

    def values(truths: Truths) -> dict[str, float]:
        terms = region_loss(raw, *padded([truths]), all_labelled(1), anchor, RegionLossConfig(), prior_box=True)
        return {name: term.item() for name, term in terms.items()}

    assert values([((0.5, 0.5, 0.5, 0.5), 1)]) == pytest.approx(
        {"no_object": 0, "object": 0.5 * 5 * 0.25, "box": 0, "class": math.log(2), "prior_box": 0}
    )
    shifted = values([((0.75, 0.5, 0.5, 0.25), 0)])  # shares 0.25·0.25 of 0.25 + 0.125 − 0.0625
    assert shifted["object"] == pytest.approx(0.5 * 5 * (0.2 - 0.5) ** 2)
    assert shifted["box"] == pytest.approx((2 - 0.125) * 0.5 * (0.25**2 + math.log(0.5) ** 2))
    assert values([]) == pytest.approx({"no_object": 0.125, "object": 0, "box": 0, "class": 0, "prior_box": 0})


def test_each_scale_multiplies_its_own_term() -> None:
    rng = np.random.default_rng(3)
    raw, truths = random_raw(rng, 2), padded([random_truths(rng, 3), random_truths(rng, 2)])

    def terms(config: RegionLossConfig) -> dict[str, Tensor]:
        return region_loss(raw, *truths, all_labelled(2), ANCHORS_A2, config, prior_box=True)

    once = terms(RegionLossConfig(1, 1, 1, 1, prior_scale=1))
    scaled = terms(RegionLossConfig(2, 3, 5, 7, prior_scale=11))
    factors = {"object": 2, "no_object": 3, "class": 5, "box": 7, "prior_box": 11}
    for name, factor in factors.items():
        assert once[name] > 0
        torch.testing.assert_close(scaled[name], once[name] * factor)


def test_the_last_truth_in_a_slot_wins_it_whole() -> None:
    rng = np.random.default_rng(5)
    first, last = ((0.31, 0.3, 0.16, 0.22), 0), ((0.3, 0.31, 0.15, 0.21), 2)
    raw = random_raw(rng, 1)
    config = RegionLossConfig()
    both = region_loss(raw, *padded([[first, last]]), all_labelled(1), ANCHORS_A2, config, prior_box=True)
    alone = region_loss(raw, *padded([[last]]), all_labelled(1), ANCHORS_A2, config, prior_box=True)
    swapped = region_loss(raw, *padded([[last, first]]), all_labelled(1), ANCHORS_A2, config, prior_box=True)
    for name in ("object", "box", "class", "prior_box"):
        assert torch.equal(both[name], alone[name])
    assert swapped["class"] != both["class"]


def test_an_unlabelled_picture_contributes_exactly_nothing() -> None:
    rng = np.random.default_rng(7)
    raw = random_raw(rng, 2)
    boxes_BT4, labels_BT = padded([random_truths(rng, 3), random_truths(rng, 3)])  # the second's are not to be read
    labelled_B = torch.tensor([True, False])
    config = RegionLossConfig()
    terms = region_loss(raw, boxes_BT4, labels_BT, labelled_B, ANCHORS_A2, config, prior_box=True)
    torch.stack(list(terms.values())).sum().backward()
    assert raw.grad is not None
    assert raw.grad[0].abs().sum() > 0
    assert torch.count_nonzero(raw.grad[1]) == 0
    alone = region_loss(raw[:1], boxes_BT4[:1], labels_BT[:1], all_labelled(1), ANCHORS_A2, config, prior_box=True)
    for name, term in terms.items():
        torch.testing.assert_close(term * 2, alone[name])


@pytest.mark.parametrize("width", [0, 2])
def test_a_labelled_picture_without_objects_learns_background(width: int) -> None:
    raw = random_raw(np.random.default_rng(9), 1)
    boxes_BT4, labels_BT = torch.zeros(1, width, 4), torch.full((1, width), -1)
    terms = region_loss(raw, boxes_BT4, labels_BT, all_labelled(1), ANCHORS_A2, RegionLossConfig(), prior_box=True)
    torch.stack(list(terms.values())).sum().backward()
    assert raw.grad is not None
    gradient_AEHW = raw.grad.view(len(ANCHORS), 5 + CLASSES, 4, 5)
    assert (gradient_AEHW[:, :5] != 0).all()
    assert (gradient_AEHW[:, 5:] == 0).all()
    assert terms["object"] == terms["box"] == terms["class"] == 0


def test_a_perfect_prediction_has_no_loss_left() -> None:
    box = torch.tensor([0.37, 0.61, 0.3, 0.6], dtype=torch.float64)
    raw_AEHW = torch.zeros(len(ANCHORS), 5 + CLASSES, 4, 5, dtype=torch.float64)
    raw_AEHW[:, 4] = -40
    anchor, row, column = 1, int(0.61 * 4), int(0.37 * 5)
    entries = encode_boxes(box, torch.tensor(column), torch.tensor(row), ANCHORS_A2[anchor], 4, 5)
    raw_AEHW[anchor, :2, row, column] = entries[:2].logit()
    raw_AEHW[anchor, 2:4, row, column] = entries[2:]
    raw_AEHW[anchor, 4, row, column] = 40
    raw_AEHW[anchor, 5 + 2, row, column] = 60
    terms = region_loss(
        raw_AEHW.flatten(0, 1)[None],
        box[None, None],
        torch.tensor([[2]]),
        all_labelled(1),
        ANCHORS_A2,
        RegionLossConfig(),
        prior_box=False,
    )
    for term in terms.values():
        assert term.item() == pytest.approx(0, abs=1e-20)


def test_centres_on_the_far_edges_are_in_the_last_cell() -> None:
    raw = random_raw(np.random.default_rng(11), 1)
    boxes = padded([[((1.0, 1.0, 0.16, 0.22), 1)]])
    terms = region_loss(raw, *boxes, all_labelled(1), ANCHORS_A2, RegionLossConfig(), prior_box=False)
    (gradient,) = torch.autograd.grad(terms["box"], raw)
    assert {tuple(place) for place in gradient.nonzero()[:, 2:].tolist()} == {(3, 4)}


def test_gradcheck_in_float64() -> None:
    rng = np.random.default_rng(13)
    raw = random_raw(rng, 2, rows=2, columns=2)
    truths = padded([random_truths(rng, 2, 2, 2), random_truths(rng, 1, 2, 2)])
    # Rescore's target is a constant for the gradient only, which numerical differentiation can't know.
    config = RegionLossConfig(rescore=False)

    def terms(raw: Tensor) -> tuple[Tensor, ...]:
        return tuple(region_loss(raw, *truths, all_labelled(2), ANCHORS_A2, config, prior_box=True).values())

    assert torch.autograd.gradcheck(terms, raw)


def test_many_truths_are_compared_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(15)
    raw, truths = random_raw(rng, 2), padded([random_truths(rng, 9), random_truths(rng, 5)])

    def no_object() -> Tensor:
        config = RegionLossConfig(ignore_iou=0.3)
        return region_loss(raw, *truths, all_labelled(2), ANCHORS_A2, config, prior_box=False)["no_object"]

    whole = no_object()
    monkeypatch.setattr(module, "PAIRS_AT_ONCE", 4 * raw.shape[0] * 60)
    assert torch.equal(no_object(), whole)


@pytest.mark.parametrize(("width", "height"), [(200.0, -200.0), (-200.0, 200.0), (200.0, 200.0), (-200.0, -200.0)])
def test_a_box_whose_size_overflowed_overlaps_nothing_and_is_pulled_back(width: float, height: float) -> None:
    """exp(200) is infinite in float32, and infinity times a height of 0 is no number: such a step ended trainings."""
    raw = torch.zeros(1, len(ANCHORS) * (5 + CLASSES), 4, 5)
    raw.view(1, len(ANCHORS), 5 + CLASSES, 4, 5)[:, :, 2] = width
    raw.view(1, len(ANCHORS), 5 + CLASSES, 4, 5)[:, :, 3] = height
    raw.requires_grad_()
    boxes_BT4, labels_BT = padded([[((0.5, 0.5, 0.3, 0.4), 1)]])
    terms = region_loss(
        raw, boxes_BT4, labels_BT, all_labelled(1), ANCHORS_A2.float(), RegionLossConfig(), prior_box=True
    )
    assert all(term.isfinite() for term in terms.values())
    assert float(terms["object"].detach()) == pytest.approx(
        0.5 * 5 * 0.5**2, rel=1e-3
    )  # an IoU of 0 against an objectness of σ(0)
    (gradient,) = torch.autograd.grad(sum(terms.values()), raw)
    assert gradient.isfinite().all()
    assert gradient.view(1, len(ANCHORS), 5 + CLASSES, 4, 5)[:, :, 2:4].abs().max() > 100


def test_half_precision_is_computed_in_float32() -> None:
    rng = np.random.default_rng(17)
    truths = padded([random_truths(rng, 3)])
    raw = random_raw(rng, 1).detach().bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = region_loss(raw, *truths, all_labelled(1), ANCHORS_A2, RegionLossConfig(), prior_box=True)
    full = region_loss(raw.double(), *truths, all_labelled(1), ANCHORS_A2, RegionLossConfig(), prior_box=True)
    for name, term in half.items():
        assert term.dtype == torch.float32
        torch.testing.assert_close(term.double(), full[name], rtol=1e-5, atol=1e-6)


def test_an_output_of_other_anchors_is_refused() -> None:
    with pytest.raises(ValueError, match="24 channels are not 5 anchors"):
        region_loss(
            torch.zeros(1, 24, 2, 2),
            torch.zeros(1, 0, 4),
            torch.zeros(1, 0, dtype=torch.long),
            all_labelled(1),
            torch.ones(5, 2),
            RegionLossConfig(),
            prior_box=False,
        )
