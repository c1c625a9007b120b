"""VOC AP: counted by hand, against a slow twin, and properties."""

import time
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.boxes import Detections, Truth
from stages.bench.voc_ap import all_point_ap, eleven_point_ap, pairwise_iou, voc_average_precision
from tests.reference_voc_ap import average_precisions, verdicts


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


# Two pictures, five truths of class "cell", one of them difficult: four count.
#
#   score  where  what it is                                       verdict   tp fp  recall  precision
#   0.95   a      exactly A1                                       tp         1  0   1/4     1
#   0.90   b      nothing there                                    fp         1  1   1/4     1/2
#   0.80   a      the difficult A3                                 ignored    -  -
#   0.75   a      A1 again, 0.9 of it                              fp         1  2   1/4     1/3
#   0.70   b      exactly B1                                       tp         2  2   2/4     2/4
#   0.60   a      the difficult A3 again                           ignored    -  -
#   0.50   b      exactly B2                                       tp         3  2   3/4     3/5
#   0.40   b      IoU 1/3 with B2                                  fp         3  3   3/4     3/6
#   0.30   a      A2 at IoU exactly 0.5                            tp         4  3   4/4     4/7
#
# Best precision at recall ≥ r: r ≤ 1/4: 1; ≤ 3/4: 3/5; ≤ 1: 4/7.
#   11-point: r = 0, .1, .2 → 1; .3 … .7 → 3/5; .8, .9, 1 → 4/7:  (3·1 + 5·3/5 + 3·4/7) / 11
#   all-point: 1/4·1 + 1/4·3/5 + 1/4·3/5 + 1/4·4/7
HAND_TRUTHS = {
    "a": truth((0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 50, 10), difficult=[2]),
    "b": truth((0, 0, 10, 10), (0, 20, 10, 30)),
}
HAND_DETECTIONS = {
    "a": found(
        (0.95, 0, 0, 10, 10), (0.80, 40, 0, 50, 10), (0.75, 0, 0, 10, 9), (0.60, 40, 0, 50, 9), (0.30, 20, 0, 30, 5)
    ),
    "b": found((0.90, 60, 60, 70, 70), (0.70, 0, 0, 10, 10), (0.50, 0, 20, 10, 30), (0.40, 5, 20, 15, 30)),
}
HAND_ELEVEN = (3 * 1 + 5 * 3 / 5 + 3 * 4 / 7) / 11
HAND_ALL = (1 + 3 / 5 + 3 / 5 + 4 / 7) / 4


def test_the_table_counted_by_hand():
    result = voc_average_precision(HAND_DETECTIONS, HAND_TRUTHS, ["cell"])
    (cell,) = result.classes
    assert (cell.truths, cell.detections, cell.ignored, cell.true_positives) == (4, 9, 2, 4)
    assert cell.ap_11_point == pytest.approx(HAND_ELEVEN)
    assert cell.ap_all_point == pytest.approx(HAND_ALL)
    assert result.map_11_point == cell.ap_11_point
    assert result.pictures == 2


def test_a_crowd_is_ignored_like_a_difficult_truth():
    crowds = HAND_TRUTHS | {"a": truth(*HAND_TRUTHS["a"].boxes, crowd=[2])}
    assert voc_average_precision(HAND_DETECTIONS, crowds, ["cell"]) == voc_average_precision(
        HAND_DETECTIONS, HAND_TRUTHS, ["cell"]
    )


def test_a_detection_whose_best_truth_is_taken_does_not_take_the_second_best():
    # The second detection overlaps both truths by more than 0.5, the first one more.
    truths = {"a": truth((0, 0, 100, 10), (0, 0, 100, 12))}
    detections = {"a": found((0.9, 0, 0, 100, 10), (0.8, 0, 0, 100, 10.5))}
    (cell,) = voc_average_precision(detections, truths, ["cell"]).classes
    assert cell.true_positives == 1
    assert cell.ap_all_point == pytest.approx(0.5)


def test_a_difficult_truth_that_is_the_best_match_hides_a_normal_one():
    truths = {"a": truth((0, 0, 100, 10), (0, 0, 100, 12), difficult=[0])}
    (cell,) = voc_average_precision({"a": found((0.9, 0, 0, 100, 10))}, truths, ["cell"]).classes
    assert (cell.true_positives, cell.ignored, cell.ap_11_point) == (0, 1, 0.0)


def test_classes_without_truth_are_named_and_left_out_of_the_mean():
    detections = {"a": found((0.9, 0, 0, 10, 10), (0.9, 0, 0, 10, 10), labels=[0, 2])}
    truths = {"a": truth((0, 0, 10, 10), (0, 0, 10, 10), labels=[0, 1], difficult=[1])}
    result = voc_average_precision(detections, truths, ["here", "only difficult", "absent"])
    assert result.without_truth == ("only difficult", "absent")
    assert result.map_11_point == result.map_all_point == pytest.approx(1.0)
    assert [c.ap_11_point for c in result.classes] == [pytest.approx(1.0), None, None]
    assert result.classes[2].detections == 1


def test_without_any_truth_there_is_no_mean():
    result = voc_average_precision({"a": found((0.9, 0, 0, 1, 1))}, {"a": truth()}, ["cell"])
    assert result.map_11_point is None
    assert result.map_all_point is None


def test_equal_scores_rank_by_key_then_by_index():
    hit, miss = (0.5, 0, 0, 10, 10), (0.5, 50, 50, 60, 60)
    truths = {"a": truth(), "b": truth((0, 0, 10, 10))}
    early = voc_average_precision({"b": found(hit, miss), "a": found()}, truths, ["cell"])
    late = voc_average_precision({"b": found(miss, hit), "a": found()}, truths, ["cell"])
    behind = voc_average_precision({"b": found(hit, miss), "a": found(miss)}, truths, ["cell"])
    assert [r.map_all_point for r in (early, late, behind)] == pytest.approx([1.0, 0.5, 0.5])


def test_recall_of_three_in_ten_reaches_the_third_point():
    hits = np.array([True] * 3)
    assert eleven_point_ap(hits, 10) == pytest.approx(4 / 11)
    assert all_point_ap(hits, 10) == pytest.approx(0.3)


def test_boxes_without_area_overlap_nothing():
    boxes = np.array([[5, 5, 5, 9], [9, 9, 3, 3], [0, 0, 10, 10]], np.float32)
    assert pairwise_iou(boxes, boxes).tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 1]]


@pytest.mark.parametrize(
    ("detections", "truths", "message"),
    [
        ({}, {"a": truth()}, "truth but no detections"),
        ({"a": found()}, {}, "detections but no truth"),
        ({"a": found((0.5, 0, 0, 1, 1), labels=[1])}, {"a": truth()}, "label outside"),
        ({"a": found((np.nan, 0, 0, 1, 1))}, {"a": truth()}, "not finite"),
    ],
)
def test_what_cannot_be_compared_is_refused(detections, truths, message):
    with pytest.raises(ValueError, match=message):
        voc_average_precision(detections, truths, ["cell"])


@st.composite
def boxes(draw, count):
    # A coarse lattice: equal overlaps, equal scores, exact thresholds and empty boxes all happen often.
    rows = [[draw(st.integers(0, 4)) for _ in range(4)] for _ in range(count)]
    return [(x, y, x + w, y + h) for x, y, w, h in rows]


@st.composite
def evaluations(draw):
    truths, detections = {}, {}
    for key in ["b", "a", "c"][: draw(st.integers(1, 3))]:
        n, m = draw(st.integers(0, 4)), draw(st.integers(0, 6))
        flags = draw(st.lists(st.sampled_from([0, 0, 0, 1, 2]), min_size=n, max_size=n))
        truths[key] = truth(
            *draw(boxes(n)),
            labels=draw(st.lists(st.integers(0, 1), min_size=n, max_size=n)),
            difficult=[i for i, flag in enumerate(flags) if flag == 1],
            crowd=[i for i, flag in enumerate(flags) if flag == 2],
        )
        scores = draw(st.lists(st.sampled_from([0.1, 0.5, 0.5, 0.9]), min_size=m, max_size=m))
        labels = draw(st.lists(st.integers(0, 1), min_size=m, max_size=m))
        detections[key] = found(*((s, *b) for s, b in zip(scores, draw(boxes(m)), strict=True)), labels=labels)
    return detections, truths, draw(st.sampled_from([0.25, 0.5, 1.0]))


@settings(deadline=None, max_examples=150)
@given(evaluations())
def test_agrees_with_the_slow_twin(case):
    detections, truths, threshold = case
    result = voc_average_precision(detections, truths, ["zero", "one"], threshold)
    for label, mine in enumerate(result.classes):
        out, wanted = verdicts(detections, truths, label, Fraction(threshold))
        assert (mine.truths, mine.detections) == (wanted, len(out))
        assert (mine.true_positives, mine.ignored) == (out.count("tp"), out.count("ignored"))
        if wanted:
            eleven, area = average_precisions(out, wanted)
            assert mine.ap_11_point == pytest.approx(float(eleven))
            assert mine.ap_all_point == pytest.approx(float(area))
        else:
            assert mine.ap_11_point is None


@settings(deadline=None, max_examples=50)
@given(evaluations())
def test_neither_the_order_of_pictures_nor_a_monotonic_change_of_scores_matters(case):
    detections, truths, threshold = case
    moved = {
        key: Detections(boxes=d.boxes, scores=d.scores**2 / 2, labels=d.labels)
        for key, d in reversed(detections.items())
    }
    assert voc_average_precision(moved, dict(reversed(truths.items())), ["zero", "one"], threshold) == (
        voc_average_precision(detections, truths, ["zero", "one"], threshold)
    )


def test_a_tenth_of_voc2007_is_evaluated_in_seconds():
    rng = np.random.default_rng(0)
    truths, detections = {}, {}
    for number in range(495):
        corners = rng.uniform(0, 300, (3 + 200, 2))
        table = np.concatenate([corners, corners + rng.uniform(10, 200, corners.shape)], axis=1).astype(np.float32)
        labels = rng.integers(0, 20, len(table))
        truths[f"{number:06}"] = truth(*table[:3], labels=labels[:3])
        detections[f"{number:06}"] = Detections(table[3:], rng.random(200, dtype=np.float32), labels[3:])
    start = time.perf_counter()
    result = voc_average_precision(detections, truths, [str(k) for k in range(20)])
    assert time.perf_counter() - start < 6
    assert sum(c.detections for c in result.classes) == 495 * 200
