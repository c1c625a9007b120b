import json
from pathlib import Path

import pytest

from data.annotations import read_annotations
from data.errors import RequestError
from data.matching import Matcher


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("photos/7.jpg", "7.xml"),
        ("photos/a/7.JPG", "a/7.txt"),
        ("set/images/a/7.jpg", "labels/a/7.txt"),
        ("set/images/a/7.jpg", "a/7.txt"),
        ("set/train/JPEGImages/7.jpg", "train/Annotations/7.xml"),
        ("train/JPEGImages/7.jpg", "7.xml"),
        ("train2017/7.jpg", "train2017/7.jpg"),
        ("coco/train2017/7.jpg", "7.jpg"),
        ("set/a/b/7.jpg", "b/7.xml"),
        ("set/b/7.jpg", "a/b/7.xml"),
        ("photos/7.jpg", "other/7"),
        ("photos/7.rf.abc.jpg", "7.rf.abc.txt"),
        ("photos/7.v2.jpg", "7.v2"),
        ("set/7.jpg", "/elsewhere/set/7.jpg"),
        ("set/7.jpg", "./7"),
    ],
)
def test_matches(key: str, name: str) -> None:
    assert Matcher([name]).match([key]) == {key: 0}


@pytest.mark.parametrize(
    ("key", "name"),
    [("set/cam2/7.jpg", "cam1/7.txt"), ("set/7.jpg", "8.txt"), ("set/7.jpg", "set.txt"), ("set/17.jpg", "7.txt")],
)
def test_does_not_match(key: str, name: str) -> None:
    assert Matcher([name]).match([key]) == {}


def test_the_better_match_has_the_annotation() -> None:
    keys = ["set/deep/7.jpg", "set/7.jpg"]
    assert Matcher(["7.xml"]).match(keys) == {"set/7.jpg": 0}
    assert Matcher(["7.xml"]).match(reversed(keys)) == {"set/7.jpg": 0}
    assert Matcher(["a/7.xml", "7.xml"]).match(["set/a/7.jpg", "set/7.jpg"]) == {"set/a/7.jpg": 0, "set/7.jpg": 1}


def test_equal_claims_are_refused() -> None:
    with pytest.raises(RequestError, match=r"7\.xml could belong to cam1/7\.jpg as well as to cam2/7\.jpg"):
        Matcher(["7.xml"]).match(["cam1/7.jpg", "cam2/7.jpg"])
    with pytest.raises(RequestError, match=r"Both a/7\.xml and b/7\.xml could belong to set/7\.jpg"):
        Matcher(["a/7.xml", "b/7.xml"]).match(["set/7.jpg"])
    assert Matcher(["7.xml"]).match(["cam1/7.jpg", "cam1/7.jpg"]) == {"cam1/7.jpg": 0}


def test_suffixes_decide_where_nothing_else_does() -> None:
    assert Matcher(["7.jpg", "7.png"]).match(["a/7.png", "a/7.jpg"]) == {"a/7.png": 1, "a/7.jpg": 0}
    assert Matcher(["7.jpg"]).match(["a/7.png", "a/7.jpg"]) == {"a/7.jpg": 0}
    assert Matcher(["7.jpg"]).match(["a/7.png"]) == {"a/7.png": 0}


def test_binding_settles_what_single_pictures_cannot(tmp_path: Path) -> None:
    (tmp_path / "1.xml").write_text("<annotation/>")
    annotations = read_annotations(tmp_path)
    bound = annotations.bind(["set/deep/1.jpg", "set/1.jpg"])
    assert annotations.truth("set/deep/1.jpg", 8, 8) is not None
    assert bound.truth("set/deep/1.jpg", 8, 8) is None
    assert bound.truth("set/1.jpg", 8, 8) is not None


def test_formats_are_recognised_or_must_be_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="does not exist"):
        read_annotations(tmp_path / "absent")
    with pytest.raises(RequestError, match="holds no annotations"):
        read_annotations(tmp_path)
    (tmp_path / "notes.txt").write_text("five words are no numbers")
    (tmp_path / "1.xml").write_text("<annotation/>")
    assert read_annotations(tmp_path).names == ("1.xml",)
    (tmp_path / "2.txt").write_text("0 .5 .5 .5 .5")
    (tmp_path / "i.json").write_text(
        json.dumps({"images": [{"id": 1, "file_name": "3.jpg"}], "categories": [], "annotations": []})
    )
    with pytest.raises(RequestError, match=r"several formats \(voc, coco, yolo\)"):
        read_annotations(tmp_path)
    assert read_annotations(tmp_path, "voc").names == ("1.xml",)
    assert read_annotations(tmp_path, "coco").names == ("3.jpg",)
    with pytest.raises(RequestError, match="no annotation file"):
        read_annotations(tmp_path / "1.xml")
    (tmp_path / "1.xml").rename(tmp_path / "1.old")
    with pytest.raises(RequestError, match="holds no annotations"):
        read_annotations(tmp_path, "voc")
