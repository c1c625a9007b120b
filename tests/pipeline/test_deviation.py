"""When does a picture's stored label count as what the teacher says?"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from data.store.schema import StoreAttributes
from pipeline.deviation import KEPT_ALIKE, Deviation, label_deviation, sum_up
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
