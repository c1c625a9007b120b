"""Soft labels on augmented real photographs: the boxes sit on the objects, whatever the view.

What a training really makes of a picture is held against the annotations mapped by hand, and against painted pixels.
`benchmarks/show_augmented.py` draws the same for people.
"""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.show_augmented import as_if_found, boxes_of, sheet
from data.annotations import AnnotationSet, read_annotations
from data.augment import AugmentConfig, draw_view, sample_rng
from data.boxes import Truth
from data.images import read_picture
from data.picture_cache import PictureCache
from data.views import View, render
from stages.networks.yolov2 import DEFAULT_ANCHORS
from stages.student.samples import SampleSettings, StoredLabels, TrainingPicture, make_sample
from stages.student.soft_targets import Grid
from tests.pictures import CLASSES, bccd, stems

TEACHER_SIDE = 416
PICTURES = 4
EPOCHS = 10
SEED = 3


def photographs() -> tuple[list[Path], AnnotationSet]:
    paths = [bccd() / "JPEGImages" / f"{stem}.jpg" for stem in stems(PICTURES)]
    keys = [f"JPEGImages/{path.name}" for path in paths]
    return paths, read_annotations(bccd() / "Annotations", "voc", CLASSES).bind(keys)


def in_distinct_slots(truth: Truth) -> Truth:
    """The objects that a teacher can hold all at once: the first of each slot, and no other."""
    kept: list[int] = []
    for i in range(len(truth)):
        chosen = np.array([*kept, i])
        some = Truth(truth.boxes[chosen], truth.labels[chosen], truth.difficult[chosen], truth.crowd[chosen])
        if len(as_if_found(some, 480, 640, TEACHER_SIDE, DEFAULT_ANCHORS, len(CLASSES)).entries) == len(chosen):
            kept.append(i)
    chosen = np.array(kept)
    return Truth(truth.boxes[chosen], truth.labels[chosen], truth.difficult[chosen], truth.crowd[chosen])


def training_picture(path: Path, truth: Truth) -> TrainingPicture:
    file = read_picture(path)
    assert file.pixels.shape == (480, 640, 3)
    table = as_if_found(truth, 480, 640, TEACHER_SIDE, DEFAULT_ANCHORS, len(CLASSES))
    grid = Grid(DEFAULT_ANCHORS, TEACHER_SIDE // 32, TEACHER_SIDE // 32)
    stored = StoredLabels(table, 0, file.digest, grid, "letterbox", TEACHER_SIDE, TEACHER_SIDE)
    return TrainingPicture(f"JPEGImages/{path.name}", path, lambda height, width: truth, (stored,))


def by_hand(box: NDArray[np.floating], view: View) -> tuple[list[float], bool]:
    """The box in the view's input, cut at its edges, and whether anything was cut off."""
    left, right = sorted(view.scale_x * float(x) + view.shift_x for x in box[[0, 2]])
    top, bottom = (view.scale_y * float(y) + view.shift_y for y in box[[1, 3]])
    cut = [max(left, 0), max(top, 0), min(right, view.width), min(bottom, view.height)]
    return cut, cut != [left, top, right, bottom]


def iou(a: NDArray[np.floating], b: list[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return float(shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared))


@pytest.mark.parametrize("side", [416, 320])
@pytest.mark.parametrize("anchors", [DEFAULT_ANCHORS, ((0.7, 0.7), (1.5, 1.5), (3.5, 3.0))], ids=["same", "other"])
def test_soft_labels_sit_where_the_annotations_are_seen(side: int, anchors: tuple[tuple[float, float], ...]):
    settings = SampleSettings(anchors, len(CLASSES), "letterbox", AugmentConfig(), SEED)
    paths, annotations = photographs()
    whole, cut, flipped, lost = 0, 0, 0, 0
    for path in paths:
        truth = annotations.truth(f"JPEGImages/{path.name}", 480, 640)
        assert truth is not None
        truth = in_distinct_slots(truth)
        assert len(truth) > 8
        item = training_picture(path, truth)
        for epoch in range(EPOCHS):
            sample = make_sample(item, settings, PictureCache(0), epoch=epoch, height=side, width=side)
            rng = sample_rng(SEED, epoch, item.key)
            view = draw_view(rng, settings.augment, "letterbox", 480, 640, side, side)
            flipped += view.scale_x < 0
            found, labels, objectness = boxes_of(sample, anchors)
            assert (objectness == 1).all()
            expected = []
            for box, label in zip(truth.boxes, truth.labels, strict=True):
                seen, was_cut = by_hand(box, view)
                if min(seen[2] - seen[0], seen[3] - seen[1]) > 0.002 * side:  # else it is out of sight
                    expected.append((seen, was_cut, label))
            # the truth that the region loss learns from lies in the same places
            assert len(sample.boxes) == len(expected)
            matched = set()
            for seen, was_cut, label in expected:
                overlaps = [iou(box, seen) for box in found]
                best = int(np.argmax(overlaps))
                if overlaps[best] < 0.9:
                    lost += 1  # another one has its slot in this grid
                    continue
                matched.add(best)
                assert overlaps[best] > (0.97 if was_cut else 0.99)
                assert labels[best] == label
                whole, cut = whole + (not was_cut), cut + was_cut
            assert matched == set(range(len(found)))
            assert len(expected) - len(found) <= sample.collisions
    assert whole > 20 * PICTURES
    assert cut > PICTURES
    assert flipped > PICTURES
    assert lost < 0.2 * (whole + cut)


def test_the_unaugmented_view_is_the_stored_tensor_itself():
    paths, annotations = photographs()
    truth = annotations.truth(f"JPEGImages/{paths[0].name}", 480, 640)
    assert truth is not None
    item = training_picture(paths[0], truth)
    plain = AugmentConfig(geometric=False, flip=0.0, photometric=False)
    settings = SampleSettings(DEFAULT_ANCHORS, len(CLASSES), "letterbox", plain, SEED)
    sample = make_sample(item, settings, PictureCache(0), epoch=0, height=TEACHER_SIDE, width=TEACHER_SIDE)
    (stored,) = item.stored
    np.testing.assert_array_equal(sample.teachers[0].dense, stored.table.dense(0))


@pytest.mark.parametrize("number", range(6))
def test_a_painted_object_lies_under_its_soft_label(number: int):
    """One object of a photograph is painted over; in the rendered view the paint fills the box of its soft label."""
    paths, annotations = photographs()
    path = paths[number % PICTURES]
    truth = annotations.truth(f"JPEGImages/{path.name}", 480, 640)
    assert truth is not None
    alone = np.array([number])
    one = Truth(np.round(truth.boxes[alone]), truth.labels[alone], truth.difficult[alone], truth.crowd[alone])
    left, top, right, bottom = one.boxes[0].astype(int)
    picture = read_picture(path).pixels.copy()
    picture[top:bottom, left:right] = (0, 255, 0)
    settings = SampleSettings(DEFAULT_ANCHORS, len(CLASSES), "letterbox", AugmentConfig(photometric=False), SEED)
    item = training_picture(path, one)
    cache = PictureCache(10**9)
    cache.put(item.key, picture)
    seen = 0
    for epoch in range(EPOCHS):
        sample = make_sample(item, settings, cache, epoch=epoch, height=TEACHER_SIDE, width=TEACHER_SIDE)
        red, green, blue = sample.picture
        rows, columns = np.nonzero((green > 0.7) & (red < 0.3) & (blue < 0.3))
        found, _, _ = boxes_of(sample, DEFAULT_ANCHORS)
        if not len(found):
            assert len(rows) < 20  # the object is out of sight, or a sliver at the edge
            continue
        painted = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(found[0], painted, atol=1.6)  # paint and picture blend along the edges
        seen += 1
    assert seen > EPOCHS // 2


def test_the_sheet_for_people_shows_these_boxes():
    paths, annotations = photographs()
    items = []
    for path in paths[:2]:
        truth = annotations.truth(f"JPEGImages/{path.name}", 480, 640)
        assert truth is not None
        items.append(training_picture(path, truth))
    drawn = sheet(items, CLASSES, DEFAULT_ANCHORS, 320, views=2)
    assert drawn.dtype == np.uint8
    assert drawn.shape[0] > 2 * 320
    assert drawn.shape[1] > 3 * 320


def test_the_views_of_these_tests_flip_crop_and_scale():
    views = [
        draw_view(sample_rng(SEED, epoch, f"JPEGImages/{stem}.jpg"), AugmentConfig(), "letterbox", 480, 640, 416, 416)
        for stem in stems(PICTURES)
        for epoch in range(EPOCHS)
    ]
    scales = [view.scale_y for view in views]
    assert 0.3 < np.mean([view.scale_x < 0 for view in views]) < 0.7
    assert max(scales) > 1.5 * min(scales)
    white = np.full((480, 640, 3), 255, np.uint8)
    shown = [float((render(white, view)[0] == 1).mean()) for view in views]
    whole = [abs(view.scale_x) * 640 * view.scale_y * 480 / 416**2 for view in views]
    cropped = np.array(whole) > 1.05 * np.array(shown)
    assert 0.2 < np.mean(cropped) < 0.95
