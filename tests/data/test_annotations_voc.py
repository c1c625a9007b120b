from pathlib import Path

import numpy as np
import pytest

from data.annotations import AnnotationSet, read_annotations
from data.errors import RequestError
from data.pictures import find_pictures

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


def thing(name: str, box: tuple[object, ...], extra: str = "") -> str:
    corners = "".join(f"<{c}>{v}</{c}>" for c, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return f"<object><name>{name}</name>{extra}<bndbox>{corners}</bndbox></object>"


def write(folder: Path, name: str, *things: str, size: str = "<width>100</width><height>80</height>") -> None:
    path = folder / f"{name}.xml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"<annotation><size>{size}</size>{''.join(things)}</annotation>")


def only(annotations: AnnotationSet, height: int = 80, width: int = 100) -> list[list[float]]:
    truth = annotations.truth("pics/1.jpg", height, width)
    assert truth is not None
    return truth.boxes.tolist()


def test_corners_count_from_one_and_belong_to_the_box(tmp_path: Path) -> None:
    write(tmp_path, "1", thing("dog", (1, 1, 10, 20)), thing("cat", (11, 21, 12, 23), "<difficult>1</difficult>"))
    annotations = read_annotations(tmp_path)
    truth = annotations.truth("pics/1.jpg", 80, 100)
    assert annotations.classes == ("cat", "dog")
    assert truth is not None
    assert truth.boxes.tolist() == [[0, 0, 10, 20], [10, 20, 12, 23]]
    assert truth.labels.tolist() == [1, 0]
    assert truth.difficult.tolist() == [False, True]
    assert truth.crowd.tolist() == [False, False]
    assert [truth.boxes.dtype, truth.labels.dtype, truth.difficult.dtype] == [np.float32, np.int64, np.bool_]


def test_dirty_boxes_are_clipped_or_dropped_and_counted(tmp_path: Path) -> None:
    write(
        tmp_path,
        "1",
        thing("a", (-19, 11, 20, 30)),  # half outside
        thing("a", (91, 71, 500, 90)),  # corner outside
        thing("a", (5, 5, 5, 9)),  # no width
        thing("a", (9, 9, 5, 5)),  # corners swapped
        thing("a", ("nan", 5, 9, 9)),
        thing("a", ("1e308", "-1e308", "inf", 9)),
        thing("a", (101, 5, 120, 9)),  # begins where the picture ends
        thing("a", (0, 0, 101, 81)),  # a pixel too far on all sides of a large box
    )
    annotations = read_annotations(tmp_path)
    assert only(annotations) == [[0, 10, 20, 30], [90, 70, 100, 80], [0, 0, 100, 80]]
    report = annotations.report
    assert (report.boxes, report.degenerate, report.outside, report.clipped) == (3, 4, 1, 3)
    assert report.summary() == (
        "1 annotated pictures (0 without objects); 3 boxes (a 3); 3 clipped to the picture; 4 degenerate, dropped; "
        "1 outside the picture, dropped"
    )


@pytest.mark.parametrize("size", ["", "<width>0</width><height>0</height>", "<width>wide</width>"])
def test_the_decoded_size_rules(tmp_path: Path, size: str) -> None:
    write(tmp_path, "1", thing("a", (1, 1, 50, 50)), thing("a", (61, 1, 70, 9)), size=size)
    annotations = read_annotations(tmp_path)
    assert annotations.report.boxes == 2
    assert only(annotations, 30, 40) == [[0, 0, 40, 30]]
    assert only(annotations, 100, 100) == [[0, 0, 50, 50], [60, 0, 70, 9]]


def test_labelled_empty_and_unlabelled_differ(tmp_path: Path) -> None:
    write(tmp_path, "empty")
    write(tmp_path, "full", thing("a", (1, 1, 5, 5)))
    annotations = read_annotations(tmp_path)
    empty = annotations.truth("x/empty.jpg", 10, 10)
    assert empty is not None
    assert len(empty) == 0
    assert empty.boxes.shape == (0, 4)
    assert annotations.truth("x/other.jpg", 10, 10) is None
    assert (annotations.report.pictures, annotations.report.empty) == (2, 1)
    assert annotations.labelled(["x/other.jpg", "x/full.jpg", "x/empty.jpg"]) == ["x/full.jpg", "x/empty.jpg"]
    assert annotations.absent(["x/other.jpg", "x/full.jpg"]) == ["empty.xml"]


def test_parts_of_an_object_are_not_its_box(tmp_path: Path) -> None:
    part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
    write(tmp_path, "1", thing("person", (3, 3, 9, 9), part))
    assert only(read_annotations(tmp_path)) == [[2, 2, 9, 9]]


def test_class_lists(tmp_path: Path) -> None:
    write(tmp_path, "1", thing("dog", (1, 1, 9, 9)), thing("cat", (2, 2, 8, 8)))
    given = read_annotations(tmp_path, classes=["bird", "dog", "cat"])
    assert given.classes == ("bird", "dog", "cat")
    assert given.report.per_class == {"bird": 0, "dog": 1, "cat": 1}
    with pytest.raises(
        RequestError, match=r"1\.xml has an object of class 'dog', which is none of the 1 classes \(cat"
    ):
        read_annotations(tmp_path, classes=["cat"])
    fewer = read_annotations(tmp_path, classes=["cat"], drop_other_classes=True)
    assert only(fewer) == [[1, 1, 8, 8]]
    assert fewer.report.other_classes == 1
    with pytest.raises(RequestError, match="cat more than once"):
        read_annotations(tmp_path, classes=["cat", "dog", "cat"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<annotation>\n<object>\n</annotation>", r"bad\.xml, line 3, is not well-formed"),
        ("", r"bad\.xml, line 1, is not well-formed"),
        ("<html/>", r"bad\.xml holds <html>"),
        ("<annotation><object><name>a</name></object></annotation>", r"bad\.xml: object 1 has no box"),
        (f"<annotation>{thing('', (1, 1, 2, 2))}</annotation>", r"bad\.xml: object 1 has no <name>"),
        (f"<annotation>{thing('a', (1, 'x', 2, 2))}</annotation>", r"bad\.xml: object 1 has no box"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>', r"bad\.xml is XML that is not read"),
        ('<?xml version="1.0" encoding="nonsense"?><annotation/>', r"bad\.xml"),
    ],
)
def test_malformed_files_are_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "bad.xml").write_text(content)
    with pytest.raises(RequestError, match=message):
        read_annotations(tmp_path)


@pytest.mark.skipif(not (SHARED / "bccd").exists(), reason="the BCCD photographs are not beside this checkout")
def test_bccd() -> None:
    annotations = read_annotations(SHARED / "bccd")
    report = annotations.report
    assert annotations.classes == ("Platelets", "RBC", "WBC")
    assert (report.pictures, report.empty, report.degenerate, report.outside) == (364, 0, 2, 0)
    assert report.boxes == 4_888 - 2
    pictures = find_pictures([str(SHARED / "bccd" / "JPEGImages")])
    bound = annotations.bind(picture.key for picture in pictures)
    assert annotations.absent(picture.key for picture in pictures) == []
    truths = [bound.truth(picture.key, 480, 640) for picture in pictures]
    assert sum(len(truth) for truth in truths if truth is not None) == report.boxes


@pytest.mark.skipif(not (SHARED / "carla").exists(), reason="the Carla pictures are not beside this checkout")
def test_carla_has_pictures_without_objects() -> None:
    annotations = read_annotations(SHARED / "carla")
    assert (annotations.report.pictures, annotations.report.empty) == (1_028, 142)
    assert annotations.report.boxes + annotations.report.degenerate + annotations.report.outside == 4_395
    whole = [picture.key for picture in find_pictures([str(SHARED / "carla")])]
    assert annotations.labelled(whole) == whole
    train = [picture.key for picture in find_pictures([str(SHARED / "carla" / "train" / "JPEGImages")])]
    assert len(annotations.absent(train)) == 249
