"""Slow, obvious twin of stages.student.soft_targets: one slot at a time, every formula written out."""

import math

import numpy as np
from numpy.typing import NDArray

from data.views import View
from stages.student.soft_targets import Grid


def slow_box_of_slot(slot: tuple[int, int, int], entries: NDArray[np.floating], grid: Grid, view: View) -> list[float]:
    """A slot's box, left, top, right, bottom in pixels of the picture."""
    anchor, row, column = slot
    x, y, w, h = (float(value) for value in entries[:4])
    centre_x = (column + x) / grid.width * view.width
    centre_y = (row + y) / grid.height * view.height
    half_width = math.exp(w) * grid.anchors[anchor][0] / grid.width * view.width / 2
    half_height = math.exp(h) * grid.anchors[anchor][1] / grid.height * view.height / 2
    ends_x = [
        (centre_x - half_width - view.shift_x) / view.scale_x,
        (centre_x + half_width - view.shift_x) / view.scale_x,
    ]
    ends_y = [
        (centre_y - half_height - view.shift_y) / view.scale_y,
        (centre_y + half_height - view.shift_y) / view.scale_y,
    ]
    return [min(ends_x), min(ends_y), max(ends_x), max(ends_y)]


def slow_place(box: list[float], view: View, height: int, width: int) -> tuple[float, float, float, float] | None:
    """A box of the picture, in pixels, as centre and size relative to the view's input; None where it is dropped."""

    def along(low: float, high: float, scale: float, shift: float, picture: int, full: int) -> tuple[float, float]:
        ends = sorted([low * scale + shift, high * scale + shift])
        picture_ends = sorted([shift, picture * scale + shift])
        if picture_ends[0] < -1e-6:
            ends = [max(end, 0.0) for end in ends]
        if picture_ends[1] > full + 1e-6:
            ends = [min(end, full) for end in ends]
        return (ends[0] + ends[1]) / 2 / full, (ends[1] - ends[0]) / full

    x, w = along(box[0], box[2], view.scale_x, view.shift_x, width, view.width)
    y, h = along(box[1], box[3], view.scale_y, view.shift_y, height, view.height)
    if w < 0.001 or h < 0.001 or not (0 <= x <= 1 and 0 <= y <= 1):
        return None
    return x, y, w, h


def slow_slot_of_box(
    box: tuple[float, float, float, float], grid: Grid
) -> tuple[tuple[int, int, int], tuple[float, float, float, float]]:
    """The slot a box belongs to, (anchor, row, column), and its x, y, w, h there."""
    x, y, w, h = box
    column = min(math.floor(x * grid.width), grid.width - 1)
    row = min(math.floor(y * grid.height), grid.height - 1)
    best, best_iou = 0, -1.0
    for anchor, (anchor_width, anchor_height) in enumerate(grid.anchors):
        box_width, box_height = w * grid.width, h * grid.height
        shared = min(box_width, anchor_width) * min(box_height, anchor_height)
        iou = shared / (box_width * box_height + anchor_width * anchor_height - shared)
        if iou > best_iou:
            best, best_iou = anchor, iou
    anchor_width, anchor_height = grid.anchors[best]
    return (best, row, column), (
        x * grid.width - column,
        y * grid.height - row,
        math.log(w * grid.width / anchor_width),
        math.log(h * grid.height / anchor_height),
    )


def slow_project(
    slots: NDArray[np.integer],
    entries: NDArray[np.floating],
    teacher_grid: Grid,
    teacher_view: View,
    student_grid: Grid,
    student_view: View,
    picture_height: int,
    picture_width: int,
) -> tuple[NDArray[np.float64], int, int]:
    """Rule 3, whatever the views: (dense [A, 5+K, H, W], collisions, dropped)."""
    taken: dict[tuple[int, int, int], tuple[tuple[float, int], list[float]]] = {}
    collisions = dropped = 0
    for slot, values in zip(slots.tolist(), entries, strict=True):
        objectness = float(values[4])
        if objectness <= 0:
            continue
        box = slow_place(
            slow_box_of_slot(tuple(slot), values, teacher_grid, teacher_view),
            student_view,
            picture_height,
            picture_width,
        )
        if box is None:
            dropped += 1
            continue
        place, xywh = slow_slot_of_box(box, student_grid)
        index = slot[0] * teacher_grid.height * teacher_grid.width + slot[1] * teacher_grid.width + slot[2]
        claim = (-objectness, index), [*xywh, *(float(value) for value in values[4:])]
        if place in taken:
            collisions += 1
            claim = min(claim, taken[place], key=lambda one: one[0])
        taken[place] = claim
    shape = (len(student_grid.anchors), entries.shape[1], student_grid.height, student_grid.width)
    dense = np.zeros(shape, np.float64)
    for (anchor, row, column), (_, row_entries) in taken.items():
        dense[anchor, :, row, column] = row_entries
    return dense, collisions, dropped
