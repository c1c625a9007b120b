"""Soft labels under augmentation: from the teacher's slots in its own view to the student's grid in another view.

The rules are in docs/store.md. Where the student sees what the teacher saw, or its mirror image, the stored numbers are
used as they are; otherwise each slot becomes a box, the box follows the pixels, and is written into the slot a ground
truth of that box would take (Darknet, src/region_layer.c, `forward_region_layer`). Shapes: n slots, A anchors, K
classes, H rows, W columns, E = 5 + K entries (x, y, w, h, objectness, classes).
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from data.boxes import cxcywh_to_xyxy
from data.views import View, place_boxes
from stages.networks.region import decode_boxes, encode_boxes

_OBJECTNESS = 4


@dataclass(frozen=True, slots=True)
class Grid:
    """Where a region head has its slots. anchors: (width, height) in cells of this grid; height, width in cells."""

    anchors: tuple[tuple[float, float], ...]
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class SoftTarget:
    """What the teacher says about one picture, in the student's slots.

    dense: float32 [A, 5+K, H, W]; slots without a soft label are all zeros. collisions: slots that lost their place to
    another. dropped: slots whose box the student's view does not show (centre outside, or a side below 0.001).
    """

    dense: NDArray[np.float32]
    collisions: int
    dropped: int


def project_soft_labels(
    slots: NDArray[np.integer],
    entries: NDArray[np.floating],
    teacher_grid: Grid,
    teacher_view: View,
    student_grid: Grid,
    student_view: View,
    picture_height: int,
    picture_width: int,
) -> SoftTarget:
    """The soft labels of one picture as targets for a student that sees it through `student_view`.

    slots: [n, 3], anchor, row and column in the teacher's grid. entries: [n, 5+K], finite, any float dtype: the stored
    rows of these slots. Both views map the same picture, given in pixels.

    1. Same view and grid: unchanged. 2. The mirrored view on the same grid: column W−1−col and x → 1−x (exact in
    float32 for every float16 x), the rest copied. 3. Otherwise, for slots with objectness > 0: decoded, mapped, clipped
    where the input cuts the picture, encoded in the cell of the centre and the anchor with the best IoU of sizes at the
    origin (the lowest on ties); objectness and classes are copied. Of two slots in one place the one with the higher
    objectness stays, then the one with the lower flat index in the teacher's grid. Geometry is float64.
    """
    if student_grid == teacher_grid:
        if student_view == teacher_view:
            return SoftTarget(_fill(student_grid, slots, entries), collisions=0, dropped=0)
        if student_view == teacher_view.mirrored():
            return SoftTarget(_fill(student_grid, *_mirror(slots, entries, teacher_grid)), collisions=0, dropped=0)

    seen = entries[:, _OBJECTNESS] > 0
    slots, entries = slots[seen], entries[seen]
    boxes = teacher_view.unmap_xyxy(_decode(slots, entries, teacher_grid, teacher_view))
    cxcywh, shown = place_boxes(boxes, student_view, picture_height, picture_width)
    slots, entries, cxcywh = slots[shown], entries[shown], cxcywh[shown]

    target_slots, xywh = assign_slots(cxcywh, student_grid)
    winner = _winners(slots, entries[:, _OBJECTNESS], teacher_grid, target_slots, student_grid)
    target_entries = np.concatenate([xywh[winner], entries[winner, _OBJECTNESS:]], axis=1)
    return SoftTarget(
        _fill(student_grid, target_slots[winner], target_entries),
        collisions=len(slots) - len(winner),
        dropped=len(shown) - len(slots),
    )


def _fill(grid: Grid, slots: NDArray[np.integer], entries: NDArray[np.floating]) -> NDArray[np.float32]:
    dense = np.zeros((len(grid.anchors), entries.shape[1], grid.height, grid.width), np.float32)
    dense[slots[:, 0], :, slots[:, 1], slots[:, 2]] = entries
    return dense


def _mirror(
    slots: NDArray[np.integer], entries: NDArray[np.floating], grid: Grid
) -> tuple[NDArray[np.integer], NDArray[np.float32]]:
    mirrored_slots, mirrored = slots.copy(), entries.astype(np.float32)
    mirrored_slots[:, 2] = grid.width - 1 - slots[:, 2]
    mirrored[:, 0] = 1 - mirrored[:, 0]
    return mirrored_slots, mirrored


def _decode(slots: NDArray[np.integer], entries: NDArray[np.floating], grid: Grid, view: View) -> NDArray[np.float64]:
    """Slots to boxes, float64 [n, 4] xyxy in pixels of the teacher's input."""
    cxcywh = decode_boxes(
        torch.from_numpy(entries[:, :_OBJECTNESS].astype(np.float64)),
        torch.from_numpy(slots[:, 2].astype(np.float64)),
        torch.from_numpy(slots[:, 1].astype(np.float64)),
        torch.from_numpy(np.array(grid.anchors, np.float64)[slots[:, 0]]),
        grid.height,
        grid.width,
    )
    return np.asarray(cxcywh_to_xyxy(cxcywh.numpy()) * np.array([view.width, view.height] * 2), np.float64)


def assign_slots(cxcywh: NDArray[np.float64], grid: Grid) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Boxes, relative to the input, to the slots a ground truth would take [n, 3] and their x, y, w, h [n, 4]."""
    anchors = np.array(grid.anchors, np.float64)
    cells = np.array([grid.width, grid.height])
    column_row = np.minimum((cxcywh[:, :2] * cells).astype(np.intp), cells - 1)
    anchor = _size_iou(cxcywh[:, 2:] * cells, anchors).argmax(axis=1)
    xywh = encode_boxes(
        torch.from_numpy(cxcywh),
        torch.from_numpy(column_row[:, 0]),
        torch.from_numpy(column_row[:, 1]),
        torch.from_numpy(anchors[anchor]),
        grid.height,
        grid.width,
    )
    return np.column_stack([anchor, column_row[:, ::-1]]), xywh.numpy()


def _size_iou(sizes: NDArray[np.float64], anchors: NDArray[np.float64]) -> NDArray[np.float64]:
    """IoU of boxes sharing one centre: sizes [n, 2] and anchors [A, 2], both in cells, to [n, A]."""
    (width, height), (anchor_width, anchor_height) = sizes.T[..., None], anchors.T
    intersection = np.minimum(width, anchor_width) * np.minimum(height, anchor_height)
    union = width * height + anchor_width * anchor_height - intersection
    return np.asarray(intersection / union)


def _winners(
    slots: NDArray[np.integer],
    objectness: NDArray[np.floating],
    grid: Grid,
    target_slots: NDArray[np.intp],
    target_grid: Grid,
) -> NDArray[np.intp]:
    """The rows that keep their place: one for each slot of the target that is taken."""
    order = np.lexsort((_flat_index(slots, grid), -objectness))
    _, first = np.unique(_flat_index(target_slots[order], target_grid), return_index=True)
    return order[first]


def _flat_index(slots: NDArray[np.integer], grid: Grid) -> NDArray[np.intp]:
    anchor, row, column = slots.T.astype(np.intp)
    return np.asarray((anchor * grid.height + row) * grid.width + column)
