"""Evaluation: every picture's detections meet that picture's truth, whatever lies between."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.annotations import AnnotationSet, read_annotations
from data.boxes import Detections
from data.picture_cache import PictureCache
from pipeline.evaluate import EvaluationPicture, evaluate
from tests.pictures import CLASSES, copy_annotations, copy_pictures, damage, stems

COUNT = 7
DAMAGED = 3


class Oracle:
    """Finds exactly what is annotated in the picture it is shown, known by its pixels alone."""

    classes = CLASSES

    def __init__(self, answers: dict[bytes, Detections]) -> None:
        self.answers = answers

    def prepare(self, picture: Any) -> Any:
        return picture

    def forward(self, prepared: Sequence[Any]) -> Any:
        return [self.answers[hashlib.sha256(picture.tobytes()).digest()] for picture in prepared]

    def finish(self, found: Any, prepared: Sequence[Any], **named: Any) -> Any:
        return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluate")
    damage(copy_pictures(folder / "pictures", COUNT)[DAMAGED])
    copy_annotations(folder / "annotations", stems(COUNT - 1))
    return folder


def given(folder: Path) -> tuple[list[EvaluationPicture], AnnotationSet, Oracle]:
    from data.images import RejectedPictureError, read_picture

    items = [EvaluationPicture(f"pictures/{path.name}", path) for path in sorted((folder / "pictures").iterdir())]
    annotations = read_annotations(folder / "annotations", None, CLASSES).bind([item.key for item in items])
    answers = {}
    for item in items:
        try:
            picture = read_picture(item.path).pixels
        except RejectedPictureError:
            continue
        truth = annotations.truth(item.key, *picture.shape[:2])
        boxes = truth.boxes if truth else np.zeros((1, 4), np.float32)
        labels = truth.labels if truth else np.zeros(1, np.int64)
        found = Detections(boxes, np.linspace(1, 0.5, len(boxes)).astype(np.float32), labels)
        answers[hashlib.sha256(picture.tobytes()).digest()] = found
    return items, annotations, Oracle(answers)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 16])
def test_a_perfect_detector_scores_one(folder: Path, batch_size: int):
    items, annotations, oracle = given(folder)
    result = evaluate(oracle, items, annotations, batch_size=batch_size, with_coco=True)  # type: ignore[arg-type]
    assert result.voc.map_11_point == pytest.approx(1)
    assert result.voc.map_all_point == pytest.approx(1)
    assert result.coco is not None
    assert result.coco.ap == pytest.approx(1, abs=1e-6)
    assert result.rejected == ((f"pictures/{stems(COUNT)[DAMAGED]}.jpg", "damaged or truncated"),)
    assert result.voc.pictures == COUNT - 2  # one is damaged, one is not annotated: neither counts for or against


def test_another_pictures_boxes_score_far_less(folder: Path):
    items, annotations, oracle = given(folder)
    oracle.answers = dict(
        zip(oracle.answers, [*oracle.answers.values()][1:] + [*oracle.answers.values()][:1], strict=True)
    )
    result = evaluate(oracle, items, annotations, with_coco=False)  # type: ignore[arg-type]
    assert result.voc.map_11_point is not None
    assert result.voc.map_11_point < 0.5


def test_a_cache_changes_nothing(folder: Path):
    items, annotations, oracle = given(folder)
    cache = PictureCache(10**9)
    for _ in range(2):
        result = evaluate(oracle, items, annotations, with_coco=False, cache=cache)  # type: ignore[arg-type]
        assert result.voc.map_11_point == pytest.approx(1)
        assert len(result.rejected) == 1
    assert cache.kept_bytes == (COUNT - 1) * 480 * 640 * 3
