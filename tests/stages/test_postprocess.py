import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data.views import View, letterbox_view, stretch_view
from stages.networks.postprocess import detections, detections_of_batch

ANCHORS = ((2.0, 2.0), (4.0, 3.0))


def entries(classes: int = 3, rows: int = 4, columns: int = 4) -> torch.Tensor:
    """Slots that all say nothing: objectness 0."""
    return torch.zeros(len(ANCHORS), 5 + classes, rows, columns)


def put(
    entries_AEHW: torch.Tensor, slot: tuple[int, int, int], box: list[float], objectness: float, p: list[float]
) -> None:
    anchor, row, column = slot
    entries_AEHW[anchor, :, row, column] = torch.tensor([*box, objectness, *p])


def plain_view() -> View:
    return stretch_view(128, 128, 128, 128)


def test_a_slot_is_found_at_its_place_in_the_picture() -> None:
    e = entries()
    put(e, (1, 2, 1), [0.5, 0.25, 0.0, 0.0], 0.8, [0.1, 0.9, 0.0])
    found = detections(e, ANCHORS, plain_view(), 128, 128, score_threshold=0.1)
    np.testing.assert_allclose(found.boxes, [[48 - 64, 72 - 48, 48 + 64, 72 + 48]], rtol=1e-6)
    np.testing.assert_allclose(found.scores, [0.72], rtol=1e-6)
    assert found.labels.tolist() == [1]
    assert (found.boxes.dtype, found.scores.dtype, found.labels.dtype) == (np.float32, np.float32, np.int64)


def test_one_slot_gives_a_detection_for_every_class_above_the_threshold() -> None:
    e = entries()
    put(e, (0, 0, 0), [0.5, 0.5, 0.0, 0.0], 0.9, [0.5, 0.3, 0.2])
    found = detections(e, ANCHORS, plain_view(), 128, 128, score_threshold=0.25)
    assert found.labels.tolist() == [0, 1]
    np.testing.assert_allclose(found.scores, [0.45, 0.27], rtol=1e-6)


def test_suppression_is_within_a_class_and_above_the_iou() -> None:
    e = entries()
    put(e, (0, 1, 1), [0.5, 0.5, 0.0, 0.0], 1.0, [0.9, 0.0, 0.0])
    put(e, (0, 1, 2), [0.0, 0.5, 0.0, 0.0], 1.0, [0.8, 0.0, 0.2])  # half a cell of two to the right: IoU 0.6
    put(e, (0, 1, 3), [0.0, 0.5, 0.0, 0.0], 1.0, [0.7, 0.0, 0.0])  # IoU 1/7 with the first
    found = detections(e, ANCHORS, plain_view(), 128, 128, score_threshold=0.1)
    assert list(zip(found.labels.tolist(), found.scores.round(3).tolist(), strict=True)) == [
        (0, np.float32(0.9).round(3)),
        (0, np.float32(0.7).round(3)),
        (2, np.float32(0.2).round(3)),
    ]
    assert len(detections(e, ANCHORS, plain_view(), 128, 128, 0.1, iou_threshold=0.61)) == 4


def test_letterbox_and_mirror_are_undone() -> None:
    e = entries()
    put(e, (0, 2, 1), [0.5, 0.5, 0.0, 0.0], 1.0, [1.0, 0.0, 0.0])  # 48 ± 32, 80 ± 32 in the input
    view = letterbox_view(100, 200, 128, 128)  # scale 0.64, 32 rows of padding above
    found = detections(e, ANCHORS, view, 100, 200, score_threshold=0.1)
    expected = np.array([[16 / 0.64, 16 / 0.64, 80 / 0.64, 80 / 0.64]])
    np.testing.assert_allclose(found.boxes, expected, rtol=1e-6)
    mirrored = detections(e, ANCHORS, view.mirrored(), 100, 200, score_threshold=0.1)
    np.testing.assert_allclose(mirrored.boxes, [[48 / 0.64, 25, 112 / 0.64, 125]], rtol=1e-6)


def test_clipping_cuts_at_the_picture_and_drops_what_lies_outside() -> None:
    e = entries()
    put(e, (0, 2, 1), [0.5, 0.5, 0.0, 0.0], 1.0, [1.0, 0.0, 0.0])
    put(e, (0, 0, 1), [0.5, 0.1, -3.0, -3.0], 0.9, [1.0, 0.0, 0.0])  # in the letterbox's padding
    view = letterbox_view(100, 200, 128, 128)
    assert len(detections(e, ANCHORS, view, 100, 200)) == 2
    found = detections(e, ANCHORS, view, 100, 200, clip=True)
    np.testing.assert_allclose(found.boxes, [[25, 25, 125, 100]], rtol=1e-6)


def test_boxes_beyond_any_number_are_no_detections() -> None:
    e = entries()
    put(e, (0, 0, 0), [0.5, 0.5, 200.0, 0.0], 1.0, [1.0, 0.0, 0.0])
    put(e, (0, 3, 3), [0.5, 0.5, 0.0, 0.0], 0.5, [1.0, 0.0, 0.0])
    found = detections(e, ANCHORS, plain_view(), 128, 128)
    assert found.scores.tolist() == [0.5]


def test_a_very_large_box_does_not_disturb_the_others() -> None:
    e = entries()
    put(e, (0, 1, 1), [0.5, 0.5, 0.0, 0.0], 1.0, [0.9, 0.0, 0.0])
    put(e, (0, 1, 2), [0.0, 0.5, 0.0, 0.0], 1.0, [0.0, 0.8, 0.0])
    put(e, (0, 3, 3), [0.5, 0.5, 40.0, 40.0], 1.0, [0.0, 0.0, 0.7])
    assert len(detections(e, ANCHORS, plain_view(), 128, 128)) == 3


def test_nothing_found_is_an_empty_answer() -> None:
    found = detections(entries(), ANCHORS, plain_view(), 128, 128)
    assert found.boxes.shape == (0, 4)
    assert len(found) == 0


def slow_detections(e: np.ndarray, threshold: float) -> list[tuple[float, int, tuple[float, ...]]]:
    """Darknet's get_region_detections and do_nms_sort, with loops, for a 128×128 picture."""
    slots, classes, rows, columns = e.shape[0], e.shape[1] - 5, e.shape[2], e.shape[3]
    kept = []
    for k in range(classes):
        candidates = []
        for n in range(slots):
            for row in range(rows):
                for column in range(columns):
                    x, y, w, h, objectness = e[n, :5, row, column]
                    score = objectness * e[n, 5 + k, row, column]
                    if objectness > threshold and score > threshold:
                        cx, cy = (column + x) / columns * 128, (row + y) / rows * 128
                        bw, bh = np.exp(w) * ANCHORS[n][0] / columns * 128, np.exp(h) * ANCHORS[n][1] / rows * 128
                        candidates.append((score, (cx - bw / 2, cy - bh / 2, cx + bw / 2, cy + bh / 2)))
        candidates.sort(key=lambda c: -c[0])
        while candidates:
            best = candidates.pop(0)
            kept.append((best[0], k, best[1]))
            candidates = [c for c in candidates if slow_iou(best[1], c[1]) <= 0.45]
    return sorted(kept, key=lambda d: -d[0])


def slow_iou(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    inner = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    return inner / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inner)


@given(seed=st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_a_whole_batch_equals_the_slow_twin(seed: int) -> None:
    random = np.random.default_rng(seed)
    e = random.uniform(0, 1, (2, 2, 8, 4, 4))
    e[:, :, 2:4] = random.normal(0, 0.5, (2, 2, 2, 4, 4))
    e[:, :, 5:] /= e[:, :, 5:].sum(axis=2, keepdims=True)
    batch = detections_of_batch(
        torch.from_numpy(e), ANCHORS, [plain_view(), plain_view()], [(128, 128)] * 2, score_threshold=0.2
    )
    for picture, found in zip(e, batch, strict=True):
        slow = slow_detections(picture, 0.2)
        assert found.labels.tolist() == [label for _, label, _ in slow]
        np.testing.assert_allclose(found.scores, [score for score, _, _ in slow], rtol=1e-5)
        np.testing.assert_allclose(found.boxes, np.reshape([box for _, _, box in slow], (-1, 4)), rtol=1e-4, atol=1e-3)
