"""Soft labels stay on their objects: against a slow twin, bit for bit where promised, and against painted pixels."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data.augment import AugmentConfig, draw_view
from data.boxes import Truth, cxcywh_to_xyxy
from data.views import View, letterbox_view, place_boxes, render, resize_view
from stages.networks.region import decode_entries
from stages.student.place_truth import place_truth
from stages.student.soft_targets import Grid, SoftTarget, project_soft_labels
from tests.reference_soft_targets import slow_box_of_slot, slow_place, slow_project, slow_slot_of_box

ANCHORS = ((1.08, 1.19), (3.42, 4.41), (6.63, 11.38), (9.42, 5.11), (16.62, 10.52))
OTHER_ANCHORS = ((1.3221, 1.73145), (3.19275, 4.00944), (5.05587, 8.09892), (9.47112, 4.84053), (11.2364, 10.0071))
TEACHER = Grid(ANCHORS, 13, 13)
PICTURES = st.tuples(st.integers(40, 600), st.integers(40, 600))
SEEDS = st.integers(0, 2**32 - 1)
CLASSES = 3


def random_slots(seed: int, grid: Grid, count: int, levels: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Distinct slots of a grid, in any order, and float16 entries as stored; objectness with ties and zeros."""
    rng = np.random.default_rng(seed)
    shape = (len(grid.anchors), grid.height, grid.width)
    flat = rng.permutation(np.prod(shape))[:count]
    entries = rng.random((count, 5 + CLASSES))
    entries[:, 2:4] = rng.normal(0, 0.7, (count, 2))
    entries[:, 4] = rng.integers(0, levels, count) / (levels - 1)
    return np.stack(np.unravel_index(flat, shape), axis=1), entries.astype(np.float16)


def dense_of(grid: Grid, slots: np.ndarray, entries: np.ndarray) -> np.ndarray:
    dense = np.zeros((len(grid.anchors), entries.shape[1], grid.height, grid.width), np.float32)
    for (anchor, row, column), values in zip(slots, entries, strict=True):
        dense[anchor, :, row, column] = values
    return dense


def sparse_of(dense: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    slots = np.argwhere(dense.any(axis=1))
    return slots, dense[slots[:, 0], :, slots[:, 1], slots[:, 2]]


def boxes_of(target: SoftTarget, grid: Grid) -> np.ndarray:
    """The boxes of the slots that are taken, cxcywh relative to the input, by the network's own decoder."""
    entries = torch.from_numpy(target.dense).double()[None]
    boxes = decode_entries(entries, torch.tensor(grid.anchors, dtype=torch.float64))[0]
    return boxes[entries[0, :, 4] > 0].numpy()


@settings(deadline=None, max_examples=40)
@given(seed=SEEDS, picture=PICTURES, resize=st.sampled_from(["letterbox", "stretch"]), count=st.integers(0, 40))
def test_the_same_view_leaves_the_stored_numbers_bit_for_bit(seed, picture, resize, count):
    slots, entries = random_slots(seed, TEACHER, count)
    views = [resize_view(resize, *picture, 416, 416) for _ in range(2)]
    target = project_soft_labels(slots, entries, TEACHER, views[0], TEACHER, views[1], *picture)
    assert target.dense.dtype == np.float32
    assert target.dense.tobytes() == dense_of(TEACHER, slots, entries).tobytes()
    assert (target.collisions, target.dropped) == (0, 0)


@settings(deadline=None, max_examples=40)
@given(seed=SEEDS, picture=PICTURES, count=st.integers(0, 40))
def test_mirroring_twice_is_the_identity_bit_for_bit(seed, picture, count):
    slots, entries = random_slots(seed, TEACHER, count)
    view = letterbox_view(*picture, 416, 416)
    mirrored = project_soft_labels(slots, entries, TEACHER, view, TEACHER, view.mirrored(), *picture)
    again = project_soft_labels(*sparse_of(mirrored.dense), TEACHER, view.mirrored(), TEACHER, view, *picture)
    assert again.dense.tobytes() == dense_of(TEACHER, slots, entries).tobytes()


def test_a_mirrored_slot_changes_its_column_and_x_alone():
    slots, entries = np.array([[3, 4, 2]]), np.arange(1, 9, dtype=np.float16)[None] / 8
    view = letterbox_view(300, 400, 416, 416)
    target = project_soft_labels(slots, entries, TEACHER, view, TEACHER, view.mirrored(), 300, 400)
    assert np.argwhere(target.dense.any(axis=1)).tolist() == [[3, 4, 10]]
    assert target.dense[3, :, 4, 10].tolist() == [0.875, *entries[0, 1:].tolist()]


def test_one_minus_x_is_exact_for_every_float16():
    every_x = np.arange(0x3C01, dtype=np.uint16).view(np.float16)
    assert every_x[-1] == 1
    assert (1 - (1 - every_x.astype(np.float32)) == every_x).all()
    assert (1 - every_x.astype(np.float32) == 1 - every_x.astype(np.float64)).all()


@settings(deadline=None, max_examples=100)
@given(
    seed=SEEDS,
    picture=PICTURES,
    size=st.sampled_from([(416, 416), (320, 608), (64, 96)]),
    resize=st.sampled_from(["letterbox", "stretch"]),
    anchors=st.sampled_from([ANCHORS, OTHER_ANCHORS, ANCHORS[:1], (ANCHORS[1], ANCHORS[1])]),
    count=st.integers(0, 60),
    scale=st.sampled_from([0.3, 1.0, 3.0]),
)
def test_any_other_view_equals_the_slow_twin(seed, picture, size, resize, anchors, count, scale):
    slots, entries = random_slots(seed, TEACHER, count)
    teacher_view = resize_view(resize, *picture, 416, 416)
    config = AugmentConfig(smallest_scale=scale, largest_scale=scale)
    student_view = draw_view(np.random.default_rng(seed), config, resize, *picture, *size)
    student = Grid(anchors, size[0] // 32, size[1] // 32)
    arguments = (slots, entries, TEACHER, teacher_view, student, student_view, *picture)
    target = project_soft_labels(*arguments)
    dense, collisions, dropped = slow_project(*arguments)
    assert target.dense.dtype == np.float32
    np.testing.assert_allclose(target.dense, dense, atol=1e-5)
    assert (target.collisions, target.dropped) == (collisions, dropped)
    x_and_y = target.dense[:, :2]
    assert x_and_y.min() >= 0
    assert x_and_y.max() <= 1


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS, picture=PICTURES)
def test_what_the_student_decodes_is_where_the_box_went(seed, picture):
    slots, entries = random_slots(seed, TEACHER, 8)
    teacher_view = letterbox_view(*picture, 416, 416)
    student_view = draw_view(np.random.default_rng(seed), AugmentConfig(), "letterbox", *picture, 352, 352)
    student = Grid(OTHER_ANCHORS, 11, 11)
    target = project_soft_labels(slots, entries, TEACHER, teacher_view, student, student_view, *picture)
    placed = [
        slow_place(slow_box_of_slot(tuple(slot), values, TEACHER, teacher_view), student_view, *picture)
        for slot, values in zip(slots.tolist(), entries, strict=True)
        if values[4] > 0
    ]
    mapped = np.array([box for box in placed if box is not None]).reshape(-1, 4)
    decoded = boxes_of(target, student)
    assert len(decoded) == len(mapped) - target.collisions
    for box in decoded:
        assert np.abs(mapped - box).max(axis=1).min() < 1e-5


@settings(deadline=None, max_examples=40)
@given(
    seed=SEEDS,
    picture=st.tuples(st.integers(100, 300), st.integers(100, 300)),
    where=st.tuples(st.floats(0, 0.7), st.floats(0, 0.7)),
    extent=st.tuples(st.floats(0.12, 0.3), st.floats(0.12, 0.3)),
    resize=st.sampled_from(["letterbox", "stretch"]),
    size=st.sampled_from([(224, 224), (192, 320)]),
)
def test_the_soft_box_surrounds_the_pixels_painted_in_the_picture(seed, picture, where, extent, resize, size):
    """A white rectangle is painted, labelled in the teacher's grid, and looked for in the student's rendered input."""
    height, width = picture
    left, top = round(where[0] * width), round(where[1] * height)
    right, bottom = left + round(extent[0] * width), top + round(extent[1] * height)
    painted = np.zeros((height, width, 3), np.uint8)
    painted[top:bottom, left:right] = 255
    box = np.array([[left, top, right, bottom]], np.float32)

    teacher_view = resize_view(resize, height, width, 416, 416)
    cxcywh, _ = place_boxes(box, teacher_view, height, width)
    slot, xywh = slow_slot_of_box(tuple(cxcywh[0]), TEACHER)
    entries = np.array([[*xywh, 0.9, 0.2, 0.7, 0.1]], np.float16)
    student_view = draw_view(np.random.default_rng(seed), AugmentConfig(), resize, height, width, *size)
    student = Grid(ANCHORS, size[0] // 32, size[1] // 32)
    target = project_soft_labels(np.array([slot]), entries, TEACHER, teacher_view, student, student_view, height, width)
    nothing = np.zeros(1, bool)
    truth = Truth(box, np.array([1]), nothing, nothing)
    truth_boxes, truth_labels = place_truth(truth, student_view, height, width)

    white = render(painted, student_view)[0] > 0.75
    # The renderer aligns corners: up to half a pixel of the picture; the threshold and rounding do the rest.
    tolerance = 1.5 + max(abs(student_view.scale_x), student_view.scale_y)
    if target.dropped:
        assert len(truth_boxes) == 0
        rows, columns = np.nonzero(white)  # what is left of it is at the very edge
        if len(rows):
            on_edge = [columns.max() < tolerance, columns.min() > size[1] - 1 - tolerance]
            on_edge += [rows.max() < tolerance, rows.min() > size[0] - 1 - tolerance]
            assert any(on_edge)
        return
    to_pixels = np.array([size[1], size[0]] * 2)
    soft_box = cxcywh_to_xyxy(boxes_of(target, student)[0]) * to_pixels
    truth_box = cxcywh_to_xyxy(truth_boxes[0]) * to_pixels
    rows, columns = np.nonzero(white)
    np.testing.assert_allclose(soft_box, truth_box, atol=0.5)  # float16
    if len(rows):
        pixels = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(soft_box, pixels, atol=tolerance)
    else:
        assert min(soft_box[2] - soft_box[0], soft_box[3] - soft_box[1]) < tolerance
    anchor, row, column = np.argwhere(target.dense[:, 4] > 0)[0]
    np.testing.assert_array_equal(target.dense[anchor, 4:, row, column], entries[0, 4:].astype(np.float32))
    assert truth_labels.tolist() == [1]


def stacked_slots(objectness: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """Slots side by side in the teacher's row 6 whose boxes share one cell of a grid at half the size."""
    slots = np.array([[1, 6, 6 + i] for i in range(len(objectness))])
    entries = np.full((len(slots), 6), 0.5, np.float16)
    entries[:, 2:4] = 0
    entries[:, 4] = objectness
    entries[:, 5] = np.arange(len(slots)) / 8
    return slots, entries


@pytest.mark.parametrize(("objectness", "winner"), [([0.3, 0.8], 1), ([0.8, 0.3], 0), ([0.5, 0.5], 0)])
@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_two_slots_in_one_place_are_settled_and_counted(objectness, winner, order):
    """By objectness, then by the lower index in the teacher's grid, in whatever order they come."""
    slots, entries = stacked_slots(objectness)
    square = letterbox_view(416, 416, 416, 416)
    small = View(0.25, 0.25, 0, 0, 416, 416)
    target = project_soft_labels(slots[order], entries[order], TEACHER, square, TEACHER, small, 416, 416)
    assert (target.collisions, target.dropped) == (1, 0)
    kept = sparse_of(target.dense)[1]
    assert kept[:, 4:].tolist() == [entries[winner, 4:].tolist()]


def test_a_slot_out_of_view_is_dropped_and_counted_and_one_without_objectness_is_neither():
    slots, entries = stacked_slots([0.5, 0.0])
    square = letterbox_view(416, 416, 416, 416)
    elsewhere = View(2, 2, -416, -416, 416, 416)
    target = project_soft_labels(slots - [[0, 6, 6]], entries, TEACHER, square, TEACHER, elsewhere, 416, 416)
    assert (target.collisions, target.dropped) == (0, 1)
    assert not target.dense.any()


def test_a_centre_on_the_far_edge_belongs_to_the_last_cell():
    slots = np.array([[0, 12, 12]])
    entries = np.array([[1, 1, 0, 0, 0.5, 1]], np.float16)
    square = letterbox_view(416, 416, 416, 416)
    target = project_soft_labels(
        slots, entries, TEACHER, square, Grid(ANCHORS, 10, 10), View(320 / 416, 320 / 416, 0, 0, 320, 320), 416, 416
    )
    assert np.argwhere(target.dense[:, 4]).tolist() == [[0, 9, 9]]
    np.testing.assert_allclose(target.dense[0, :2, 9, 9], [1, 1])


def test_difficult_crowd_and_unseen_truth_is_not_trained_on():
    boxes = np.array([[10, 10, 50, 50], [20, 10, 40, 50], [10, 20, 50, 40], [90, 90, 100, 100]], np.float32)
    truth = Truth(boxes, np.array([3, 1, 2, 0]), np.array([0, 1, 0, 0], bool), np.array([0, 0, 1, 0], bool))
    top_left = View(2, 2, 0, 0, 100, 100)
    placed, labels = place_truth(truth, top_left, 100, 100)
    assert (placed.dtype, labels.dtype) == (np.float32, np.int64)
    np.testing.assert_allclose(placed, [[0.6, 0.6, 0.8, 0.8]])
    assert labels.tolist() == [3]


def test_no_truth_is_no_box():
    truth = Truth(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, bool), np.zeros(0, bool))
    placed, labels = place_truth(truth, letterbox_view(30, 40, 64, 64), 30, 40)
    assert placed.shape == (0, 4)
    assert labels.shape == (0,)
