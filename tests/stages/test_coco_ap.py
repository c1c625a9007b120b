"""COCO AP by pycocotools: cases counted by hand, agreement with VOC's all-point AP, and nothing printed."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from data.boxes import Detections, Truth
from stages.bench.coco_ap import coco_average_precision
from stages.bench.voc_ap import voc_average_precision


def truth(*boxes, labels=None, difficult=(), crowd=()):
    n = len(boxes)
    return Truth(
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        labels=np.array(labels if labels is not None else [0] * n, np.int64),
        difficult=np.isin(np.arange(n), difficult),
        crowd=np.isin(np.arange(n), crowd),
    )


def found(*rows, labels=None):
    """Rows of score, left, top, right, bottom."""
    table = np.array(rows, np.float32).reshape(-1, 5)
    return Detections(
        boxes=table[:, 1:],
        scores=table[:, 0],
        labels=np.array(labels if labels is not None else [0] * len(rows), np.int64),
    )


def test_perfect_detections_score_one_by_area_of_the_box():
    truths = {"a": truth((0, 0, 20, 20), (100, 100, 150, 150)), "b": truth((0, 0, 200, 200), labels=[1])}
    detections = {
        "a": found((0.9, 0, 0, 20, 20), (0.8, 100, 100, 150, 150)),
        "b": found((0.7, 0, 0, 200, 200), labels=[1]),
    }
    result = coco_average_precision(detections, truths, ["cell", "plate", "unused"])
    assert (result.ap, result.ap50, result.ap75) == pytest.approx((1, 1, 1))
    assert (result.ap_small, result.ap_medium, result.ap_large) == pytest.approx((1, 1, 1))
    # With one detection per picture and class, class "cell" finds one of its two.
    assert (result.ar_1, result.ar_10, result.ar_100) == pytest.approx((0.75, 1, 1))


def test_iou_of_exactly_six_tenths_counts_at_three_of_ten_thresholds():
    result = coco_average_precision({"a": found((0.9, 0, 0, 60, 100))}, {"a": truth((0, 0, 100, 100))}, ["cell"])
    assert (result.ap, result.ap50, result.ap75) == pytest.approx((0.3, 1, 0))
    assert result.ap_small is None
    assert result.ap_large == pytest.approx(0.3)


def test_no_detections_is_zero_and_no_truth_is_none():
    nothing = coco_average_precision({"a": found()}, {"a": truth((0, 0, 100, 100))}, ["cell"])
    assert (nothing.ap, nothing.ar_100) == (0, 0)
    assert coco_average_precision({"a": found((0.9, 0, 0, 1, 1))}, {"a": truth()}, ["cell"]).ap is None
    assert coco_average_precision({}, {}, ["cell"]).ap50 is None


def test_a_crowd_takes_any_number_of_detections_and_a_difficult_truth_one():
    boxes = (0, 0, 50, 50), (100, 100, 200, 200)
    detections = {"a": found((0.9, 100, 100, 200, 200), (0.8, 100, 100, 200, 200), (0.7, 0, 0, 50, 50))}
    plain = coco_average_precision(detections, {"a": truth(*boxes)}, ["cell"])
    crowd = coco_average_precision(detections, {"a": truth(*boxes, crowd=[1])}, ["cell"])
    difficult = coco_average_precision(detections, {"a": truth(*boxes, difficult=[1])}, ["cell"])
    assert crowd.ap50 == pytest.approx(1.0)  # both fall into the crowd, the third is the one truth
    assert difficult.ap50 == pytest.approx(0.5)  # the second is a false positive before the one truth
    assert plain.ap50 == pytest.approx((51 * 1 + 50 * 2 / 3) / 101)  # found, doubled, found: 1, then 2/3
    assert difficult.ap_large is None


def test_prints_nothing_and_leaves_the_input_alone(capfd):
    truths, detections = {"a": truth((0, 0, 9, 9))}, {"a": found((0.5, 0, 0, 9, 8))}
    before = truths["a"].boxes.copy(), detections["a"].boxes.copy()
    coco_average_precision(detections, truths, ["cell"])
    assert capfd.readouterr() == ("", "")
    assert np.array_equal(truths["a"].boxes, before[0])
    assert np.array_equal(detections["a"].boxes, before[1])


def test_different_pictures_are_refused():
    with pytest.raises(ValueError, match="on one side only"):
        coco_average_precision({"a": found()}, {"b": truth()}, ["cell"])


@settings(deadline=None, max_examples=40)
@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(0, 20))
def test_agrees_with_all_point_ap_where_the_two_count_alike(hits, missed):
    # Truths far apart, each found at most once and exactly: COCO samples the same curve at 101 points of recall.
    rows = [(i * 20, 0, i * 20 + 10, 10) for i in range(sum(hits) + missed)]
    free = iter(rows)
    scored = [(1 - i / 100, *(next(free) if hit else (i * 20, 500, i * 20 + 10, 510))) for i, hit in enumerate(hits)]
    assume(rows)
    truths, detections = {"a": truth(*rows)}, {"a": found(*scored)}
    coco = coco_average_precision(detections, truths, ["cell"])
    voc = voc_average_precision(detections, truths, ["cell"])
    assert coco.ap50 == pytest.approx(voc.map_all_point, abs=1.01 / 101 + 1e-9)
    assert coco.ap == pytest.approx(coco.ap50)
    assert coco.ar_100 == pytest.approx(voc.classes[0].true_positives / len(rows))
