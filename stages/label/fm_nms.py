"""Feature-map NMS: of the slots of one class that see the same object, only the best survives.

Mehta & Ozturk, "Object detection at 200 FPS" (arXiv 1805.06361), Fig. 4. The paper leaves the visiting order, the
candidate threshold and the ties open; the rules here are written down in docs/store.md. Shapes: B pictures, A anchors,
K classes, H rows, W columns, E = 5 + K entries.
"""

from collections.abc import Iterator
from typing import get_args

import torch
from torch import Tensor
from torch.nn.functional import pad

from data.errors import RequestError
from data.store.schema import FmNmsAttributes, FmNmsMode
from stages.networks.region import BOX_ENTRIES, decode_entries

OVERLAP = 0.45
"""IoU above which two boxes of mode `overlap` are of one object: the threshold of Darknet's box NMS (`nms=.45`)."""

_COMPARABLE = (torch.float16, torch.bfloat16, torch.float32)
_NOT_A_RIVAL = torch.iinfo(torch.int64).min
_NO_CLASS = -1


def feature_map_nms(
    objectness_BAHW: Tensor,
    class_prob_BAKHW: Tensor,
    window: int = 3,
    mode: FmNmsMode = "local-max",
    min_objectness: float = 0.0,
    boxes_BAHW4: Tensor | None = None,
) -> Tensor:
    """Which slots keep their soft label: bool [B, A, H, W], on the device of the input.

    objectness_BAHW and class_prob_BAKHW (float16, bfloat16 or float32) are compared as they come: a caller that stores
    float16 rounds first, so that filtering a stored label again gives the same answer. Candidates have objectness ≥
    min_objectness (compared in float32; NaN is never a candidate). The class of a slot is its argmax, the first one on
    ties. The window (odd, in cells) is clipped at the border and spans all anchors. Equal objectness: the lower flat
    index a·H·W + y·W + x wins.

    - `local-max`: a candidate is kept unless a candidate of its class in its window beats it. No host synchronisation.
    - `overlap`: the same, but only a candidate whose box overlaps its own with an IoU above OVERLAP beats it. Not in
      the paper, whose rule also drops a neighbour that is another object (docs/decisions/0016). boxes_BAHW4: of the
      slots, cxcywh in any unit, needed by this mode alone.
    - `greedy`: by descending objectness, each kept slot removes the other candidates of its class in its window.
    - `off`: every candidate is kept.

    Raises RequestError for an even or non-positive window or an unknown mode, ValueError for tensors that do not fit or
    are missing.
    """
    _check(objectness_BAHW, class_prob_BAKHW, window, mode)
    objectness_BAHW = objectness_BAHW.float()
    candidate_BAHW = objectness_BAHW >= min_objectness
    if mode == "off":
        return candidate_BAHW
    rank_BAHW = _rank(objectness_BAHW).masked_fill(~candidate_BAHW, _NOT_A_RIVAL)
    # max() rather than argmax(): the same first index, six times faster on the CPU along a dimension that is not last.
    class_BAHW = class_prob_BAKHW.float().max(dim=2).indices
    if mode == "greedy":
        return _greedy(rank_BAHW, class_BAHW, window)
    corners_4BAHW = None
    if mode == "overlap":
        if boxes_BAHW4 is None:
            raise ValueError("FM-NMS in mode overlap needs the boxes")
        corners_4BAHW = _corners(boxes_BAHW4.float())
    return candidate_BAHW & ~_is_beaten(rank_BAHW, rank_BAHW, class_BAHW, window, corners_4BAHW)


def filter_entries(entries_BAEHW: Tensor, anchors_A2: Tensor, rule: FmNmsAttributes) -> Tensor:
    """The soft labels of the entries that the region head gives, float16 [B, A, 5+K, H, W]: zeros where not kept.

    The rule is applied to the values as they are stored, in float16.
    """
    entries_BAEHW = entries_BAEHW.half()
    boxes_BAHW4 = decode_entries(entries_BAEHW.float(), anchors_A2) if rule.mode == "overlap" else None
    keep_BAHW = feature_map_nms(
        entries_BAEHW[:, :, BOX_ENTRIES - 1],
        entries_BAEHW[:, :, BOX_ENTRIES:],
        rule.window,
        rule.mode,
        rule.min_objectness,
        boxes_BAHW4,
    )
    return apply_keep(entries_BAEHW, keep_BAHW)


def apply_keep(entries_BAEHW: Tensor, keep_BAHW: Tensor) -> Tensor:
    """The soft labels as they are stored: float16 [B, A, 5+K, H, W], zeros in every slot that is not kept."""
    return entries_BAEHW.half().masked_fill(~keep_BAHW[:, :, None], 0.0)


def _check(objectness_BAHW: Tensor, class_prob_BAKHW: Tensor, window: int, mode: str) -> None:
    if window < 1 or window % 2 == 0:
        raise RequestError(f"The FM-NMS window is {window}; it must be an odd number of cells, 1 or more, such as 3.")
    if mode not in get_args(FmNmsMode):
        raise RequestError(f"The FM-NMS mode is {mode!r}; it must be one of {', '.join(get_args(FmNmsMode))}.")
    for name, tensor in (("objectness", objectness_BAHW), ("class probabilities", class_prob_BAKHW)):
        if tensor.dtype not in _COMPARABLE:
            raise ValueError(f"FM-NMS got {name} of {tensor.dtype}; expected float16, bfloat16 or float32.")
    classes = class_prob_BAKHW.shape[2] if class_prob_BAKHW.ndim == 5 else 0
    batch, anchors, *grid = objectness_BAHW.shape if objectness_BAHW.ndim == 4 else (0, 0)
    if classes < 1 or tuple(class_prob_BAKHW.shape) != (batch, anchors, classes, *grid):
        shapes = f"{tuple(objectness_BAHW.shape)} and {tuple(class_prob_BAKHW.shape)}"
        raise ValueError(f"FM-NMS got shapes {shapes}; expected [B, A, H, W] and [B, A, K, H, W] with K of 1 or more.")


def _rank(objectness_BAHW: Tensor) -> Tensor:
    """The order of contracts as one int64: objectness in the high half, the falling flat index in the low half.

    Every rank within a picture is different, so "beats" is a strict total order and needs one comparison. A float32
    read as an integer orders as the float does once the bits of negative numbers are turned round; adding 0 makes −0
    equal to 0.
    """
    bits = (objectness_BAHW + 0.0).view(torch.int32)
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).long()
    slots = objectness_BAHW.shape[1:].numel()
    falling = torch.arange(slots - 1, -1, -1, device=objectness_BAHW.device).view(objectness_BAHW.shape[1:])
    return (ordered << 32) | falling


def _corners(boxes_BAHW4: Tensor) -> Tensor:
    """cxcywh to left, top, right, bottom, first axis."""
    cx, cy, w, h = boxes_BAHW4.unbind(-1)
    return torch.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2])


def _overlap(one_4: Tensor, other_4: Tensor) -> Tensor:
    """Where boxes (left, top, right, bottom along the first axis) overlap with an IoU above OVERLAP; broadcasts."""
    shared = shared_area(one_4, other_4)
    area, other_area = ((box[2] - box[0]) * (box[3] - box[1]) for box in (one_4, other_4))
    return shared > OVERLAP * (area + other_area - shared)


def shared_area(one_4: Tensor, other_4: Tensor) -> Tensor:
    """Of the intersection of boxes (left, top, right, bottom along the first axis), in their unit; broadcasts."""
    width = torch.minimum(one_4[2], other_4[2]) - torch.maximum(one_4[0], other_4[0])
    height = torch.minimum(one_4[3], other_4[3]) - torch.maximum(one_4[1], other_4[1])
    return width.clamp(min=0) * height.clamp(min=0)


def _is_beaten(
    rank_BAHW: Tensor, rival_BAHW: Tensor, class_BAHW: Tensor, window: int, corners_4BAHW: Tensor | None = None
) -> Tensor:
    """Where some rival of the same class in the window has the higher rank; _NOT_A_RIVAL marks slots that never beat.

    With boxes a rival must overlap. Compares each offset of the window for all pairs of anchors at once: window² · A²
    comparisons per cell.
    """
    beaten_BAHW = torch.zeros_like(rank_BAHW, dtype=torch.bool)
    shifted = zip(
        window_shifts(rival_BAHW, window, _NOT_A_RIVAL), window_shifts(class_BAHW, window, _NO_CLASS), strict=True
    )
    boxes = None if corners_4BAHW is None else window_shifts(corners_4BAHW, window, 0.0)
    for shifted_rank_BAHW, shifted_class_BAHW in shifted:
        higher_BAAHW = shifted_rank_BAHW[:, None] > rank_BAHW[:, :, None]
        same_BAAHW = shifted_class_BAHW[:, None] == class_BAHW[:, :, None]
        beats_BAAHW = higher_BAAHW & same_BAAHW
        if corners_4BAHW is not None and boxes is not None:
            beats_BAAHW &= _overlap(corners_4BAHW[:, :, :, None], next(boxes)[:, :, None])
        beaten_BAHW |= beats_BAAHW.any(dim=2)
    return beaten_BAHW


def window_shifts(x_BAHW: Tensor, window: int, fill: float) -> Iterator[Tensor]:
    """The tensor moved by every offset of the window, as views into one copy padded with `fill`."""
    height, width = x_BAHW.shape[-2:]  # any axes before them
    reach_y, reach_x = min(window // 2, height - 1), min(window // 2, width - 1)
    padded = pad(x_BAHW, (reach_x, reach_x, reach_y, reach_y), value=fill)
    for y in range(2 * reach_y + 1):
        for x in range(2 * reach_x + 1):
            yield padded[..., y : y + height, x : x + width]


def _greedy(rank_BAHW: Tensor, class_BAHW: Tensor, window: int) -> Tensor:
    """Greedy suppression in rounds: keep all local maxima of what is undecided, remove what they beat, repeat.

    Equal to visiting slots one by one in falling rank. A local maximum of the undecided has no undecided slot of its
    class and window above it, and those already removed suppress nothing; so the sequential visit, too, would keep it.
    What a kept slot beats the sequential visit removes, because windows are symmetric. Each round decides at least the
    highest undecided slot, so the loop ends; the number of rounds is the longest chain of falling neighbours.
    """
    keep_BAHW = torch.zeros_like(rank_BAHW, dtype=torch.bool)
    while bool((undecided_BAHW := rank_BAHW != _NOT_A_RIVAL).any()):
        winner_BAHW = undecided_BAHW & ~_is_beaten(rank_BAHW, rank_BAHW, class_BAHW, window)
        winning_rank_BAHW = rank_BAHW.masked_fill(~winner_BAHW, _NOT_A_RIVAL)
        removed_BAHW = _is_beaten(rank_BAHW, winning_rank_BAHW, class_BAHW, window)
        keep_BAHW |= winner_BAHW
        rank_BAHW = rank_BAHW.masked_fill(winner_BAHW | removed_BAHW, _NOT_A_RIVAL)
    return keep_BAHW
