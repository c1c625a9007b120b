"""The region layer's loss: what YOLOv2 learns from annotated objects.

Darknet (src/region_layer.c, `forward_region_layer`) has no loss in closed form: it writes a delta for every output, the
negative gradient. Here each kind of delta is a differentiable term whose gradient with respect to the raw output is
Darknet's, so it runs under autograd and can be summed with others. Per picture, o = σ(z) being a slot's objectness:

    no_object   noobject_scale · ½ (0 − o)²                              slots without an object whose box has no IoU
                                                                         above ignore_iou with any truth
    object      object_scale · ½ (IoU − o)²                              objects' slots; the IoU of the decoded box and
                                                                         the truth is a constant
    box         coord_scale · (2 − w·h) · ½ ‖t − (σ(x), σ(y), w, h)‖²    objects' slots; w·h is the truth's
    class       class_scale · cross-entropy of the softmax               objects' slots
    prior_box   prior_scale · ½ ‖(½, ½, 0, 0) − (σ(x), σ(y), w, h)‖²     slots without an object, early in training

An object's slot is the cell of its centre and the anchor with the best IoU of sizes at the origin, the lowest on ties.
Darknet goes through a picture's truths in order and assigns deltas rather than adding them: where several truths fall
in one slot the last one wins it whole, box, objectness and class, and the slot's prior-box delta is replaced too.

Differences from Darknet: any number of truths (there at most 30), and unlabelled pictures, which contribute nothing.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from stages.networks.region import BOX_ENTRIES, decode_boxes, encode_boxes

PAIRS_AT_ONCE = 1 << 18
"""Slot-truth pairs compared in one go: the temporaries, 1 MiB each in float32, stay in a core's cache."""

LARGEST_LOG_SIZE = 10.0
"""Raw w and h are held within ± this where only an overlap is asked for: a box 22,000 times its anchor overlaps nothing
either, and infinity times zero, where the one overflows and the other vanishes, would be no number."""


@dataclass(frozen=True, slots=True)
class RegionLossConfig:
    """The region layer's weights, named as in Darknet's cfg files; the defaults are those of the YOLOv2 VOC files.

    ignore_iou is Darknet's `thresh`; prior_scale the constant .01 of forward_region_layer. With rescore the objectness
    target is the IoU of the predicted box, without it 1.
    """

    object_scale: float = 5.0
    noobject_scale: float = 1.0
    class_scale: float = 1.0
    coord_scale: float = 1.0
    ignore_iou: float = 0.6
    rescore: bool = True
    prior_scale: float = 0.01


def region_loss(
    raw_BCHW: Tensor,
    boxes_BT4: Tensor,
    labels_BT: Tensor,
    labelled_B: Tensor,
    anchors_A2: Tensor,
    config: RegionLossConfig,
    *,
    prior_box: bool,
) -> dict[str, Tensor]:
    """Darknet's region loss as named scalar terms; their sum is the loss.

    raw_BCHW: the head's raw output, C = A·(5+K). Computed in float32 whatever the network ran in; float64 stays.
    boxes_BT4: truths, cxcywh relative to the input, in order, sizes positive; rows of padding may hold anything.
    labels_BT: int64, class of each truth, −1 for padding. T may be 0 and differ from batch to batch.
    labelled_B: bool; a picture without truths is empty where True (its slots learn "no object") and unlabelled where
    False (it contributes exactly nothing, to value and gradient).
    anchors_A2: in cells of the grid. prior_box: whether training is still in the prior-box phase.

    Each term is summed over slots and pictures and divided by B, all pictures of the batch (Darknet divides the
    learning rate by the batch instead). Keys: no_object, object, box, class, and prior_box when asked for.
    Raises ValueError when C is not A slots of 5 + K entries.
    """
    raw_BAEHW = split_slots(raw_BCHW, len(anchors_A2))
    _, anchors, entries, rows, columns = raw_BAEHW.shape
    anchors_A2 = anchors_A2.to(raw_BAEHW)
    labelled_B = labelled_B.to(raw_BAEHW.device)
    present_BT = (labels_BT >= 0) & labelled_B[:, None]
    # Any valid box will do for padding: its weight is 0, but the log of a zero size times 0 would be NaN.
    boxes_BT4 = boxes_BT4.to(raw_BAEHW).where(present_BT[..., None], 1.0)

    anchor_BT, row_BT, column_BT = _responsible(boxes_BT4, anchors_A2, rows, columns)
    slot_BT = (anchor_BT * rows + row_BT) * columns + column_BT
    wins_BT = _last_in_slot(slot_BT, present_BT)
    occupied_BS = _mark(slot_BT, wins_BT, anchors * rows * columns)
    background_BS = labelled_B[:, None] & ~occupied_BS

    xy_BA2HW, wh_BA2HW, objectness_BA1HW, _ = torch.split(raw_BAEHW, [2, 2, 1, entries - BOX_ENTRIES], dim=2)
    with torch.no_grad():
        overlaps_BS = _overlaps_any(
            _decode_all(xy_BA2HW, wh_BA2HW, anchors_A2), boxes_BT4, present_BT, threshold=config.ignore_iou
        )
    no_object_BS = 0.5 * config.noobject_scale * objectness_BA1HW.sigmoid().square().flatten(1)
    terms = {"no_object": _total(no_object_BS, background_BS & ~overlaps_BS)}

    raw_BTE = _gather_slots(raw_BAEHW, anchor_BT, row_BT * columns + column_BT)
    xywh_BT4 = torch.cat([raw_BTE[..., 0:2].sigmoid(), raw_BTE[..., 2:4]], dim=-1)
    place = (column_BT, row_BT, anchors_A2[anchor_BT], rows, columns)
    with torch.no_grad():
        target_BT = torch.ones_like(raw_BTE[..., 4])
        if config.rescore:
            wh_BT2 = xywh_BT4[..., 2:].clamp(-LARGEST_LOG_SIZE, LARGEST_LOG_SIZE)
            target_BT = _iou(decode_boxes(torch.cat([xywh_BT4[..., :2], wh_BT2], dim=-1), *place), boxes_BT4)
    object_BT = 0.5 * config.object_scale * (target_BT - raw_BTE[..., 4].sigmoid()).square()
    scale_BT = config.coord_scale * box_scale(boxes_BT4[..., 2], boxes_BT4[..., 3])
    box_BT = 0.5 * scale_BT * (encode_boxes(boxes_BT4, *place) - xywh_BT4).square().sum(-1)
    class_BT = config.class_scale * cross_entropy(
        raw_BTE[..., BOX_ENTRIES:].movedim(-1, 1), labels_BT.clamp(min=0), reduction="none"
    )
    terms |= {"object": _total(object_BT, wins_BT), "box": _total(box_BT, wins_BT), "class": _total(class_BT, wins_BT)}

    if prior_box:
        error_BAHW = (0.5 - xy_BA2HW.sigmoid()).square().sum(2) + wh_BA2HW.square().sum(2)
        terms["prior_box"] = _total(0.5 * config.prior_scale * error_BAHW.flatten(1), background_BS)
    return terms


def split_slots(raw_BCHW: Tensor, anchors: int) -> Tensor:
    """The head's raw output [B, A·(5+K), H, W] as raw slots [B, A, 5+K, H, W], at least float32.

    Half precision has too few bits for objectness near 0 and for sums over thousands of slots.
    """
    batch, channels, rows, columns = raw_BCHW.shape
    if channels % anchors or channels // anchors <= BOX_ENTRIES:
        raise ValueError(f"{channels} channels are not {anchors} anchors of 5 + K entries")
    dtype = torch.promote_types(raw_BCHW.dtype, torch.float32)
    return raw_BCHW.to(dtype).reshape(batch, anchors, channels // anchors, rows, columns)


def box_scale(width: Tensor, height: Tensor) -> Tensor:
    """2 − w·h: small boxes weigh up to twice as much as one that fills the input (sizes relative to it)."""
    return 2 - width * height


def _responsible(boxes_BT4: Tensor, anchors_A2: Tensor, rows: int, columns: int) -> tuple[Tensor, Tensor, Tensor]:
    """Each truth's anchor, row and column, int64 [B, T]. A centre on the right or lower edge is in the last cell."""
    column_BT = (boxes_BT4[..., 0] * columns).long().clamp(0, columns - 1)
    row_BT = (boxes_BT4[..., 1] * rows).long().clamp(0, rows - 1)
    size_BT12 = boxes_BT4[..., None, 2:] * boxes_BT4.new_tensor([columns, rows])
    shared_BTA = torch.minimum(size_BT12, anchors_A2).prod(-1)
    iou_BTA = shared_BTA / (size_BT12.prod(-1) + anchors_A2.prod(-1) - shared_BTA)
    return iou_BTA.argmax(-1), row_BT, column_BT


def _last_in_slot(slot_BT: Tensor, present_BT: Tensor) -> Tensor:
    """Which truths keep their slot: bool [B, T], those that no later truth of the picture overwrites."""
    same_BTT = (slot_BT[:, :, None] == slot_BT[:, None, :]) & present_BT[:, None, :]
    return present_BT & ~same_BTT.triu(diagonal=1).any(-1)


def _mark(slot_BT: Tensor, chosen_BT: Tensor, slots: int) -> Tensor:
    """bool [B, slots], True at the slots of the chosen truths; the others go to one slot too many, cut off again."""
    marked = torch.zeros(len(slot_BT), slots + 1, dtype=torch.bool, device=slot_BT.device)
    return marked.scatter_(1, slot_BT.where(chosen_BT, slots), True)[:, :slots]


def _gather_slots(raw_BAEHW: Tensor, anchor_BT: Tensor, cell_BT: Tensor) -> Tensor:
    """The truths' slots: [B, T, E]."""
    batch, truths = anchor_BT.shape
    _, _, entries, rows, columns = raw_BAEHW.shape
    entry_E = torch.arange(entries, device=raw_BAEHW.device)
    index_BTE = (anchor_BT[..., None] * entries + entry_E) * (rows * columns) + cell_BT[..., None]
    return raw_BAEHW.flatten(1).gather(1, index_BTE.flatten(1)).view(batch, truths, entries)


def _decode_all(xy_BA2HW: Tensor, wh_BA2HW: Tensor, anchors_A2: Tensor) -> Tensor:
    """Every slot's box, to compare: [B, S, 4] cxcywh relative, S = A·H·W in the order anchor, row, column."""
    rows, columns = xy_BA2HW.shape[-2:]
    wh_BA2HW = wh_BA2HW.clamp(-LARGEST_LOG_SIZE, LARGEST_LOG_SIZE)
    boxes_BAHW4 = decode_boxes(
        torch.cat([xy_BA2HW.sigmoid(), wh_BA2HW], dim=2).movedim(2, -1),
        torch.arange(columns, device=xy_BA2HW.device),
        torch.arange(rows, device=xy_BA2HW.device)[:, None],
        anchors_A2[:, None, None, :],
        rows,
        columns,
    )
    return boxes_BAHW4.flatten(1, 3)


def _overlaps_any(boxes_BS4: Tensor, truths_BT4: Tensor, present_BT: Tensor, *, threshold: float) -> Tensor:
    """bool [B, S]: the slot's box has an IoU above the threshold with some truth of its picture."""
    batch, slots, _ = boxes_BS4.shape
    overlaps_BS = torch.zeros(batch, slots, dtype=torch.bool, device=boxes_BS4.device)
    at_once = max(1, PAIRS_AT_ONCE // (batch * slots))
    for some_Bt4, present_Bt in zip(
        torch.split(truths_BT4, at_once, 1), torch.split(present_BT, at_once, 1), strict=True
    ):
        shared_BtS, union_BtS = _shared_and_union(boxes_BS4[:, None], some_Bt4[:, :, None])
        overlaps_BS |= ((shared_BtS > threshold * union_BtS) & present_Bt[..., None]).any(1)
    return overlaps_BS


def _iou(one: Tensor, other: Tensor) -> Tensor:
    """IoU of boxes [..., 4] cxcywh, pair by pair."""
    shared, union = _shared_and_union(one, other)
    return shared / union


def _shared_and_union(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Areas of intersection and union of boxes [..., 4] cxcywh; broadcasts all but the last dimension."""
    sides = []
    for centre, size in ((0, 2), (1, 3)):
        half_one, half_other = one[..., size] / 2, other[..., size] / 2
        high = torch.minimum(one[..., centre] + half_one, other[..., centre] + half_other)
        low = torch.maximum(one[..., centre] - half_one, other[..., centre] - half_other)
        sides.append((high - low).clamp_(min=0))
    shared = sides[0] * sides[1]
    return shared, one[..., 2] * one[..., 3] + other[..., 2] * other[..., 3] - shared


def _total(loss: Tensor, chosen: Tensor) -> Tensor:
    """The chosen entries' sum over the batch size."""
    return (loss * chosen).sum() / len(loss)
