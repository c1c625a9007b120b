"""What FM-NMS keeps of disturbed entries lies between the bounds; without disturbance they meet."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data.store.schema import FmNmsAttributes, FmNmsMode
from stages.label.fm_nms import filter_entries
from stages.label.kept_bounds import kept_bounds

MODES: tuple[FmNmsMode, ...] = ("local-max", "greedy", "overlap", "off")
ANCHORS = torch.tensor([(1.0, 1.0), (0.5, 2.0), (2.0, 1.5)])
ROUNDING = 2**-11
"""Of float16, in which entries are stored: relative."""


def kept(entries_BAEHW: torch.Tensor, rule: FmNmsAttributes) -> torch.Tensor:
    return filter_entries(entries_BAEHW, ANCHORS, rule).any(dim=2)


def random_entries(seed: int, height: int, width: int) -> torch.Tensor:
    """Teacher-like float32 entries of two pictures."""
    generator = torch.Generator().manual_seed(seed)
    entries = torch.randn(2, 3, 5 + 3, height, width, generator=generator) * 0.3
    entries[:, :, [0, 1, 4]] = torch.rand(2, 3, 3, height, width, generator=generator)
    entries[:, :, 5:] = (3 * entries[:, :, 5:]).softmax(dim=2)
    return entries


@settings(deadline=None, max_examples=100)
@given(
    seed=st.integers(0, 2**32 - 1),
    height=st.integers(1, 6),
    width=st.integers(1, 6),
    window=st.sampled_from([1, 3, 5, 31]),
    mode=st.sampled_from(MODES),
    min_objectness=st.sampled_from([0.0, 0.01, 0.4]),
    tolerance=st.sampled_from([2e-3, 2e-2, 1e-1]),
)
def test_what_is_kept_of_disturbed_entries_lies_between(seed, height, width, window, mode, min_objectness, tolerance):
    entries = random_entries(seed, height, width)
    rule = FmNmsAttributes(mode, window, min_objectness)
    surely, possibly = kept_bounds(entries, ANCHORS, rule, tolerance)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(5):
        share = 2 * torch.rand(entries.shape, generator=generator) - 1
        if torch.rand((), generator=generator) < 0.5:
            share = share.sign()
        disturbed = entries + share * (tolerance - ROUNDING) * (1 + entries.abs())
        disturbed[:, :, 4].clamp_(min=0)
        now = kept(disturbed, rule)
        assert not (surely & ~now).any()
        assert not (now & ~possibly).any()


@pytest.mark.parametrize("mode", MODES)
def test_without_tolerance_both_bounds_are_what_is_kept(mode: FmNmsMode):
    entries = random_entries(1, 9, 9).half()
    objectness = torch.linspace(0, 1, 2 * entries[0, :, 0].numel()).half().view(2, -1)  # all different within a picture
    order = torch.randperm(objectness.shape[1], generator=torch.Generator().manual_seed(0))
    entries[:, :, 4] = objectness[:, order].view(entries[:, :, 4].shape)
    rule = FmNmsAttributes(mode, 3, 0.1)
    surely, possibly = kept_bounds(entries, ANCHORS, rule, 0.0)
    assert torch.equal(surely, kept(entries, rule))
    assert torch.equal(possibly, surely)


@pytest.mark.parametrize(
    ("objectness", "surely", "possibly"),
    [
        ([0.9, 0.5, 0.02], [True, False, False], [True, False, False]),  # beaten, and no candidate
        ([0.9, 0.899, 0.5], [False, False, False], [True, True, False]),  # a near tie; the last loses either way
        ([0.101, 0.0, 0.099], [False, False, False], [True, False, True]),  # near the threshold
    ],
)
def test_a_slot_is_open_only_by_a_near_tie_or_the_threshold(
    objectness: list[float], surely: list[bool], possibly: list[bool]
):
    entries = torch.ones(1, 1, 5 + 1, 1, 3)
    entries[0, 0, 4, 0] = torch.tensor(objectness)
    found = kept_bounds(entries, ANCHORS[:1], FmNmsAttributes("local-max", 3, 0.1), 2e-3)
    assert [bound.flatten().tolist() for bound in found] == [surely, possibly]


def test_a_chain_of_greedy_is_settled_along_its_length():
    """0.9 removes 0.8, so 0.7 stays and removes 0.6: none of it is in doubt."""
    entries = torch.ones(1, 1, 5 + 1, 1, 4)
    entries[0, 0, 4, 0] = torch.tensor([0.9, 0.8, 0.7, 0.6])
    for bound in kept_bounds(entries, ANCHORS[:1], FmNmsAttributes("greedy", 3, 0.1), 2e-3):
        assert bound.flatten().tolist() == [True, False, True, False]
