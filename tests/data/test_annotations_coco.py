import json
from pathlib import Path
from typing import Any

import pytest

from data.annotations import read_annotations
from data.errors import RequestError


def document(**changes: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "images": [
            {"id": 7, "file_name": "train/a.jpg", "height": 80, "width": 100},
            {"id": 3, "file_name": "b.png"},
        ],
        "categories": [{"id": 90, "name": "dog"}, {"id": 4, "name": "cat"}, {"id": 8, "name": "bird"}],
        "annotations": [
            {"image_id": 7, "category_id": 90, "bbox": [10, 20, 30, 40], "iscrowd": 0, "segmentation": [[1, 2]]},
            {"image_id": 7, "category_id": 4, "bbox": [90.5, 0, 20, 10.25], "iscrowd": 1, "segmentation": {"size": []}},
            {"image_id": 7, "category_id": 4, "bbox": [1, 1, 0, 5]},
        ],
    }
    return made | changes


def written(tmp_path: Path, content: object) -> Path:
    path = tmp_path / "instances.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_boxes_classes_and_crowd(tmp_path: Path) -> None:
    annotations = read_annotations(written(tmp_path, document()))
    assert annotations.classes == ("cat", "bird", "dog")  # by category id, numbered without gaps
    truth = annotations.truth("pics/a.jpg", 80, 100)
    assert truth is not None
    assert truth.boxes.tolist() == [[10, 20, 40, 60], [90.5, 0, 100, 10.25]]
    assert truth.labels.tolist() == [2, 0]
    assert truth.crowd.tolist() == [False, True]
    assert truth.difficult.tolist() == [False, False]
    report = annotations.report
    assert (report.pictures, report.empty, report.boxes, report.crowd) == (2, 1, 2, 1)
    assert (report.clipped, report.degenerate) == (1, 1)


def test_an_image_without_annotations_is_empty_and_others_are_unlabelled(tmp_path: Path) -> None:
    written(tmp_path, document())
    annotations = read_annotations(tmp_path)
    empty = annotations.truth("pics/b.png", 5, 5)
    assert empty is not None
    assert len(empty) == 0
    assert annotations.truth("pics/c.png", 5, 5) is None


def test_a_given_class_list_decides_the_labels(tmp_path: Path) -> None:
    path = written(tmp_path, document())
    truth = read_annotations(path, classes=["dog", "cat"]).truth("pics/a.jpg", 80, 100)
    assert truth is not None
    assert truth.labels.tolist() == [0, 1]
    with pytest.raises(RequestError, match="class 'dog'"):
        read_annotations(path, classes=["cat", "bird"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"images": [\n\n oops]}', r"instances\.json, line 3, is not well-formed JSON"),
        ("[]", "holds no object with images"),
        ("[" * 200_000, "JSON"),
        ({"images": [], "annotations": []}, "'categories' is missing"),
        (document(annotations=[{"image_id": 1, "category_id": 4, "bbox": [1, 2, 3, 4]}]), "but 1 is missing"),
        (document(annotations=[{"image_id": 7, "category_id": 1, "bbox": [1, 2, 3, 4]}]), "but 1 is missing"),
        (document(annotations=[{"image_id": 7, "category_id": 4, "bbox": [1, 2, 3]}]), "not enough values"),
        (document(annotations=[{"image_id": 7, "category_id": 4, "bbox": None}]), "not COCO instances JSON"),
        (document(annotations=[3]), "not COCO instances JSON"),
        (document(images={"a": 1}), "not COCO instances JSON"),
        (document(images=[]), "not COCO instances JSON"),
        ({"images": [], "annotations": [], "categories": []}, "holds no annotations"),
        (document(categories=[{"id": 90, "name": "a"}, {"id": 4, "name": "a"}]), "a more than once"),
    ],
)
def test_what_is_not_coco_is_refused(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        read_annotations(written(tmp_path, content), format="coco")


def test_a_folder_with_several_json_files(tmp_path: Path) -> None:
    written(tmp_path, document())
    (tmp_path / "captions.json").write_text("{}")
    with pytest.raises(RequestError, match="holds 2 JSON files"):
        read_annotations(tmp_path)
