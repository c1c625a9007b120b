"""When does a picture's stored label count as what the teacher says?"""

import functools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from data.images import read_picture
from data.store.schema import FmNmsAttributes, FmNmsMode, StoreAttributes
from data.views import render, resize_view
from pipeline.deviation import KEPT_ALIKE, Deviation, label_deviation, sum_up
from pipeline.model_source import LoadedDetector, load_detector_source
from stages.device import Precision
from stages.label.fm_nms import filter_entries
from stages.label.teacher import Teacher
from tests.pictures import ROOT, bccd, stems
from tests.reference_store import tiny_attributes

ATTRIBUTES = tiny_attributes()

SIDE = 32
"""Of the grid: the share of one slot is far below what the contract allows."""


def attributes(min_objectness: float = 0.1) -> StoreAttributes:
    return replace(ATTRIBUTES, fm_nms=replace(ATTRIBUTES.fm_nms, mode="local-max", min_objectness=min_objectness))


def background() -> NDArray[np.float16]:
    """Entries of a picture without objects."""
    anchors, classes = len(ATTRIBUTES.teacher.anchors), len(ATTRIBUTES.teacher.classes)
    entries = np.zeros((anchors, 5 + classes, SIDE, SIDE), np.float16)
    entries[:, 5] = 1
    return entries


def with_objects(*cells: tuple[int, int], objectness: float = 0.5) -> NDArray[np.float16]:
    """Entries with objects of the first anchor and class in these cells."""
    entries = background()
    for row, column in cells:
        entries[0, :5, row, column] = (0.5, 0.5, 0.1, 0.1, objectness)
    return entries


def label(entries: NDArray[np.float16], min_objectness: float = 0.1) -> NDArray[np.float16]:
    """What a store holds of entries without near neighbours."""
    return np.where(entries[:, 4:5] >= min_objectness, entries, 0).astype(np.float16)


def compare(stored: NDArray[np.float16], entries: NDArray[np.float16]) -> Deviation:
    return label_deviation("picture", stored, entries, attributes())


def test_what_the_teacher_says_agrees():
    entries = with_objects((3, 3), (8, 8))
    found = compare(label(entries), entries)
    assert (found.compared, found.largest, found.unexplained, found.kept_alike, found.agrees) == (2, 0.0, 0, 1.0, True)


def test_two_wrong_slots_of_two_disagree_though_nearly_all_are_empty_in_both():
    found = compare(label(with_objects((3, 3), (8, 8))), with_objects((1, 9), (10, 2)))
    assert found.kept_alike >= KEPT_ALIKE
    assert found.unexplained == 4
    assert found.largest >= 0.5
    assert not found.agrees


def test_one_wholly_wrong_picture_of_32_is_enough():
    entries = with_objects((3, 3), (8, 8))
    right, wrong = compare(label(entries), entries), compare(label(with_objects((1, 9), (10, 2))), entries)
    assert sum_up([right] * 32).agrees
    summed = sum_up([right] * 31 + [replace(wrong, key="wrong")])
    assert summed.kept_alike >= KEPT_ALIKE
    assert (summed.key, summed.unexplained, summed.compared, summed.agrees) == ("wrong", 4, 64, False)


def test_an_empty_label_of_a_picture_with_objects_disagrees():
    found = compare(np.zeros_like(background()), with_objects((3, 3)))
    assert (found.compared, found.unexplained, found.agrees) == (0, 1, False)


def test_a_slot_by_the_threshold_may_be_kept_by_one_side_only():
    above, below = with_objects((3, 3), objectness=0.1005), with_objects((3, 3), objectness=0.0995)
    for stored, entries in ((label(above), below), (label(below), above)):
        found = compare(stored, entries)
        assert (found.unexplained, found.agrees) == (0, True)
        assert found.kept_alike < 1


def test_a_near_tie_may_fall_to_another_slot_and_a_clear_win_may_not():
    entries = with_objects((3, 3), (3, 4))
    entries[0, 4, 3, 4] = 0.501
    stored = label(entries)
    stored[0, :, 3, 4] = 0  # the teacher of the store saw the other one in front
    assert compare(stored, entries).agrees
    entries[0, 4, 3, 4] = 0.7
    assert compare(stored, entries).unexplained == 2


def test_nothing_kept_is_nothing_compared():
    found = compare(np.zeros_like(background()), background())
    assert (found.compared, found.largest, found.unexplained) == (0, 0.0, 0)


def test_a_precision_with_fewer_bits_is_given_more():
    entries = with_objects((3, 3), objectness=0.5)
    stored = label(with_objects((3, 3), objectness=0.55))
    assert not compare(stored, entries).agrees
    coarse = replace(attributes(), run=replace(ATTRIBUTES.run, precision="bfloat16"))
    assert label_deviation("picture", stored, entries, coarse).agrees


# --- the demo's teacher on real pictures


@pytest.fixture(scope="module")
def source() -> LoadedDetector:
    return load_detector_source(ROOT / "demo/teacher.safetensors", None, None)


@pytest.fixture(scope="module")
def entries_of(source: LoadedDetector) -> Callable[..., torch.Tensor]:
    """Before FM-NMS, of 16 pictures, by how they were computed."""
    views = []
    for stem in stems(16):
        pixels = read_picture(bccd() / f"JPEGImages/{stem}.jpg").pixels
        rows, columns = pixels.shape[:2]
        view = resize_view(source.resize, rows, columns, source.height, source.width)
        views.append(torch.from_numpy(render(pixels, view)))
    pictures_B3HW = torch.stack(views)

    @functools.cache
    def compute(precision: Precision, batch: int, *, mirrored: bool = False) -> torch.Tensor:
        teacher = Teacher(
            source.detector,
            device=torch.device("cpu"),
            precision=precision,
            memory_format=torch.channels_last if batch == 1 else torch.contiguous_format,
            fm_nms=FmNmsAttributes("off", 3, 0.0),
        )
        given = pictures_B3HW.flip(-1) if mirrored else pictures_B3HW
        return torch.cat([teacher.label(some).soft_labels for some in given.split(batch)])

    return compute


@pytest.mark.parametrize("min_objectness", [0.01, 0.5, 0.85])
@pytest.mark.parametrize("mode", ["local-max", "greedy", "overlap", "off"])
def test_rounding_is_told_from_other_pictures(
    mode: FmNmsMode, min_objectness: float, source: LoadedDetector, entries_of: Callable[..., torch.Tensor]
):
    rule = FmNmsAttributes(mode, 3, min_objectness)
    teacher = replace(ATTRIBUTES.teacher, anchors=source.detector.anchors)

    def deviations(stored: torch.Tensor, live: torch.Tensor, precision: str) -> list[Deviation]:
        run = replace(ATTRIBUTES.run, precision=precision)
        settings = replace(ATTRIBUTES, fm_nms=rule, teacher=teacher, run=run)
        kept = filter_entries(stored, torch.tensor(teacher.anchors), rule)
        return [label_deviation("", kept[i].numpy(), live[i].numpy(), settings) for i in range(len(kept))]

    for precision in ("float32", "bfloat16"):
        live = entries_of(precision, 1)
        assert sum_up(deviations(entries_of(precision, 8), live, precision)).agrees
        others = [
            each for each in deviations(entries_of(precision, 8, mirrored=True), live, precision) if each.compared
        ]
        assert len(others) >= 8
        assert not any(each.agrees for each in others)
    assert sum_up(deviations(entries_of("bfloat16", 8), entries_of("float32", 1), "bfloat16")).agrees
