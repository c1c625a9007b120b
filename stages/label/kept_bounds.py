"""Which slots FM-NMS keeps whatever rounding does: of entries that are known within a tolerance only.

Two runs of one teacher on other hardware, or in other batches, differ in the last bits, and FM-NMS turns a near tie
into another slot. This tells such a slot from a wrong one, by interval arithmetic over the rule of fm_nms.py.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from data.store.schema import FmNmsAttributes
from stages.label.fm_nms import OVERLAP, shared_area, window_shifts
from stages.networks.region import BOX_ENTRIES, decode_entries

_NO_SLOT = -1


def kept_bounds(
    entries_BAEHW: Tensor, anchors_A2: Tensor, rule: FmNmsAttributes, tolerance: float
) -> tuple[Tensor, Tensor]:
    """Slots kept surely and slots kept possibly, bool [B, A, H, W] each.

    entries_BAEHW: the region head's [B, A, 5+K, H, W] before FM-NMS. For all entries that differ from these by at most
    tolerance · (1 + |entry|), what `filter_entries` keeps contains the former and is contained in the latter.
    """
    entries_BAEHW = entries_BAEHW.float()
    slack_BAEHW = tolerance * (1 + entries_BAEHW.abs())
    low_BAEHW, high_BAEHW = entries_BAEHW - slack_BAEHW, entries_BAEHW + slack_BAEHW
    low_BAEHW[:, :, BOX_ENTRIES - 1].clamp_(min=0)  # no objectness is less
    candidate_BAHW = low_BAEHW[:, :, BOX_ENTRIES - 1] >= rule.min_objectness
    perhaps_BAHW = high_BAEHW[:, :, BOX_ENTRIES - 1] >= rule.min_objectness
    if rule.mode == "off":
        return candidate_BAHW, perhaps_BAHW
    surely_beats, possibly_beats = _beats(low_BAEHW, high_BAEHW, anchors_A2, rule)
    kept_BAHW = candidate_BAHW & ~_beaten(possibly_beats, perhaps_BAHW, rule.window)
    if rule.mode != "greedy":
        return kept_BAHW, perhaps_BAHW & ~_beaten(surely_beats, candidate_BAHW, rule.window)
    # Only a slot that is kept itself removes others; what is sure of one may settle the next along a chain.
    while True:
        left_BAHW = perhaps_BAHW & ~_beaten(surely_beats, kept_BAHW, rule.window)
        more_BAHW = candidate_BAHW & ~_beaten(possibly_beats, left_BAHW, rule.window)
        if torch.equal(more_BAHW, kept_BAHW):
            return kept_BAHW, left_BAHW
        kept_BAHW = more_BAHW


def _beats(
    low_BAEHW: Tensor, high_BAEHW: Tensor, anchors_A2: Tensor, rule: FmNmsAttributes
) -> tuple[list[Tensor], list[Tensor]]:
    """For each offset of the window, whether the rival there (third axis) beats a slot (second): surely, possibly."""
    slots = torch.arange(low_BAEHW[0, :, 0].numel()).view(low_BAEHW[:1, :, 0].shape)
    likely_BAKHW = high_BAEHW[:, :, BOX_ENTRIES:] >= low_BAEHW[:, :, BOX_ENTRIES:].amax(dim=2, keepdim=True)
    low_BAHW, high_BAHW = low_BAEHW[:, :, BOX_ENTRIES - 1], high_BAEHW[:, :, BOX_ENTRIES - 1]
    surely, possibly = [], []
    boxes = _boxes(low_BAEHW, high_BAEHW, anchors_A2)
    shifted = zip(
        window_shifts(slots, rule.window, _NO_SLOT),
        window_shifts(low_BAHW, rule.window, -torch.inf),
        window_shifts(high_BAHW, rule.window, -torch.inf),
        window_shifts(likely_BAKHW, rule.window, False),
        *(window_shifts(box, rule.window, 0.0) for box in boxes),
        strict=True,
    )
    for rival, rival_low, rival_high, rival_likely, *rival_boxes in shifted:
        other_BAAHW = rival[:, None] != slots[:, :, None]
        shared_BAAKHW = rival_likely[:, None] & likely_BAKHW[:, :, None]
        certain_BAAHW = (rival_likely.sum(dim=2) == 1)[:, None] & (likely_BAKHW.sum(dim=2) == 1)[:, :, None]
        possible_BAAHW = other_BAAHW & shared_BAAKHW.any(dim=3) & (rival_high[:, None] >= low_BAHW[:, :, None])
        sure_BAAHW = possible_BAAHW & certain_BAAHW & (rival_low[:, None] > high_BAHW[:, :, None])
        if rule.mode == "overlap":
            inner, outer = (
                shared_area(box[:, :, :, None], rival_box[:, :, None])
                for box, rival_box in zip(boxes[:2], rival_boxes[:2], strict=True)
            )
            least, most = (
                area[:, :, None] + rival_area[:, None]
                for area, rival_area in zip(boxes[2:], rival_boxes[2:], strict=True)
            )
            possible_BAAHW &= outer > OVERLAP * (least - outer)
            sure_BAAHW &= inner > OVERLAP * (most - inner)
        surely.append(sure_BAAHW)
        possibly.append(possible_BAAHW)
    return surely, possibly


def _boxes(low_BAEHW: Tensor, high_BAEHW: Tensor, anchors_A2: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What every box covers and what it may cover (left, top, right, bottom along the first axis); its least and its
    greatest area."""
    low_4, high_4 = (decode_entries(each, anchors_A2).unbind(-1) for each in (low_BAEHW, high_BAEHW))
    (x, y, w, h), (x_high, y_high, w_high, h_high) = low_4, high_4
    inner = torch.stack([x_high - w / 2, y_high - h / 2, x + w / 2, y + h / 2])
    outer = torch.stack([x - w_high / 2, y - h_high / 2, x_high + w_high / 2, y_high + h_high / 2])
    return inner, outer, w * h, w_high * h_high


def _beaten(beats: list[Tensor], rival_BAHW: Tensor, window: int) -> Tensor:
    """Where one of these rivals beats the slot."""
    beaten_BAHW = torch.zeros_like(rival_BAHW)
    shifted: Iterator[Tensor] = window_shifts(rival_BAHW, window, False)
    for beats_BAAHW, shifted_BAHW in zip(beats, shifted, strict=True):
        beaten_BAHW |= (beats_BAAHW & shifted_BAHW[:, None]).any(dim=2)
    return beaten_BAHW
