"""The region head: from raw activations to boxes, and back.

The last map of a YOLOv2-family network has one slot per anchor and cell, and A·(5+K) channels: channel n·(5+K)+e is
entry e of anchor n, with the entries x, y, w, h, objectness and K classes (Darknet, src/region_layer.c,
`get_region_box` and `forward_region_layer`; Redmon & Farhadi, YOLO9000, section 2 "Direct location prediction"):

    x = (column + σ(t_x)) / W      w = exp(t_w) · anchor_w / W
    y = (row + σ(t_y)) / H         h = exp(t_h) · anchor_h / H

Anchors are in cells of the grid; boxes are centre, width, height relative to the network's input.
"""

import torch
from torch import Tensor

BOX_ENTRIES = 5
"""Entries of a slot before its classes: x, y, w, h, objectness."""


def activate(raw_BCHW: Tensor, anchors: int, classes: int) -> Tensor:
    """The head's raw output [B, A·(5+K), H, W] as entries [B, A, 5+K, H, W].

    x, y and objectness go through the logistic, the classes through the softmax; w and h stay raw (the log of size over
    anchor). The dtype is kept; give it float32 when the network ran in less.
    """
    batch, channels, rows, columns = raw_BCHW.shape
    entries = BOX_ENTRIES + classes
    if channels != anchors * entries:
        raise ValueError(f"{channels} channels are not {anchors} anchors of 5 + {classes} entries")
    raw_BAEHW = raw_BCHW.reshape(batch, anchors, entries, rows, columns)
    return torch.cat(
        [
            raw_BAEHW[:, :, 0:2].sigmoid(),
            raw_BAEHW[:, :, 2:4],
            raw_BAEHW[:, :, 4:5].sigmoid(),
            raw_BAEHW[:, :, BOX_ENTRIES:].softmax(dim=2),
        ],
        dim=2,
    )


def decode_boxes(xywh: Tensor, column: Tensor, row: Tensor, anchor_wh: Tensor, grid_h: int, grid_w: int) -> Tensor:
    """Slot entries to boxes: [..., 4] (σ(x), σ(y), raw w, raw h) to [..., 4] cxcywh relative to the input.

    column, row: [...], the slot's cell. anchor_wh: [..., 2], in cells. All broadcast; any float dtype.
    """
    x, y, w, h = xywh.unbind(-1)
    return _stack(
        (column + x) / grid_w,
        (row + y) / grid_h,
        w.exp() * anchor_wh[..., 0] / grid_w,
        h.exp() * anchor_wh[..., 1] / grid_h,
    )


def encode_boxes(cxcywh: Tensor, column: Tensor, row: Tensor, anchor_wh: Tensor, grid_h: int, grid_w: int) -> Tensor:
    """The inverse of `decode_boxes`: [..., 4] cxcywh relative to the input to [..., 4] slot entries.

    x and y are offsets in the given cell, in [0, 1] when the centre lies in it; width and height must be positive.
    """
    x, y, w, h = cxcywh.unbind(-1)
    return _stack(
        x * grid_w - column,
        y * grid_h - row,
        (w * grid_w / anchor_wh[..., 0]).log(),
        (h * grid_h / anchor_wh[..., 1]).log(),
    )


def decode_entries(entries_BAEHW: Tensor, anchors_A2: Tensor) -> Tensor:
    """Every slot's box: entries [B, A, 5+K, H, W] to boxes [B, A, H, W, 4], cxcywh relative to the input."""
    rows, columns = entries_BAEHW.shape[-2:]
    device, dtype = entries_BAEHW.device, entries_BAEHW.dtype
    return decode_boxes(
        entries_BAEHW[:, :, 0:4].movedim(2, -1),
        torch.arange(columns, device=device, dtype=dtype),
        torch.arange(rows, device=device, dtype=dtype)[:, None],
        anchors_A2.to(device=device, dtype=dtype)[:, None, None, :],
        rows,
        columns,
    )


def _stack(*coordinates: Tensor) -> Tensor:
    return torch.stack(torch.broadcast_tensors(*coordinates), dim=-1)  # type: ignore[no-untyped-call]
