from pathlib import Path

import numpy as np
import pytest

from data.annotations import read_annotations
from data.errors import RequestError
from data.pictures import find_pictures

SHARED = Path(__file__).parents[2].parent / "shared"
COCO_CC = SHARED / "data" / "coco_cc"


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_relative_boxes_follow_the_decoded_size(tmp_path: Path) -> None:
    write(tmp_path / "classes.txt", "cat\ndog\n")
    write(
        tmp_path / "1.txt",
        "1 0.5 0.5 0.5 0.25\n\n0 0.0 0.5 0.5 1 \n0 0.5 0.5 0 0.1\n0 nan 0.5 0.5 0.5\n0 1.5 .5 .1 .1\n",
    )
    write(tmp_path / "2.txt", "")
    annotations = read_annotations(tmp_path)
    assert annotations.classes == ("cat", "dog")
    truth = annotations.truth("pics/1.jpg", 80, 100)
    assert truth is not None
    assert truth.boxes.tolist() == [[25, 30, 75, 50], [0, 0, 25, 80]]
    assert truth.labels.tolist() == [1, 0]
    report = annotations.report
    assert (report.pictures, report.empty, report.boxes) == (2, 1, 2)
    assert (report.degenerate, report.clipped, report.outside) == (2, 1, 1)
    assert annotations.truth("pics/3.jpg", 8, 8) is None


@pytest.mark.parametrize(
    "names",
    ["names: [cat, dog]", "names:\n- cat\n- dog\n", "path: .\nnames:\n  0: cat\n  1: dog\n", "names: {1: dog, 0: cat}"],
)
def test_names_from_yaml(tmp_path: Path, names: str) -> None:
    write(tmp_path / "data.yaml", names)
    write(tmp_path / "README.txt", "not a label")
    write(tmp_path / "labels" / "train" / "1.txt", "1 .5 .5 .5 .5")
    write(tmp_path / "images" / "train" / "1.jpg", "")
    for path in (tmp_path, tmp_path / "data.yaml", tmp_path / "labels", tmp_path / "labels" / "train"):
        annotations = read_annotations(path, format="yolo" if path == tmp_path else None)
        assert annotations.classes == ("cat", "dog")
        (picture,) = find_pictures([str(tmp_path)])
        truth = annotations.truth(picture.key, 10, 10)
        assert truth is not None
        assert truth.labels.tolist() == [1]


def test_given_classes_name_the_numbers_or_reorder_the_names(tmp_path: Path) -> None:
    write(tmp_path / "labels" / "1.txt", "0 .5 .5 .5 .5")
    assert read_annotations(tmp_path, classes=["a", "b"]).report.per_class == {"a": 1, "b": 0}
    write(tmp_path / "labels" / "classes.txt", "b\na")
    assert read_annotations(tmp_path / "labels", classes=["a", "b"]).report.per_class == {"a": 0, "b": 1}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 .5 .5 .5", r"1\.txt, line 2, is '0 \.5 \.5 \.5': expected class x y width height"),
        ("0 .5 .5 .5 .5 .9", "line 2"),
        ("cat .5 .5 .5 .5", "line 2"),
        ("2 .5 .5 .5 .5", "line 2, has class 2, but 2 classes are named"),
        ("-1 .5 .5 .5 .5", "line 2, has class -1"),
    ],
)
def test_malformed_lines_are_named(tmp_path: Path, line: str, message: str) -> None:
    write(tmp_path / "1.txt", f"0 .5 .5 .5 .5\n{line}\n")
    with pytest.raises(RequestError, match=message):
        read_annotations(tmp_path, classes=["cat", "dog"])


def test_missing_or_broken_names(tmp_path: Path) -> None:
    labels = tmp_path / "a" / "b" / "labels"
    write(labels / "1.txt", "0 .5 .5 .5 .5")
    with pytest.raises(RequestError, match="have no names"):
        read_annotations(labels)
    for text, message in (("names: 3", "should have `names`"), ("x: [", "line 1, is not well-formed YAML")):
        write(labels / "data.yaml", text)
        with pytest.raises(RequestError, match=message):
            read_annotations(labels)
    write(labels / "data.yaml", "names: {1: a, 2: b}")
    with pytest.raises(RequestError, match="numbers from 0"):
        read_annotations(labels)
    write(labels / "data.yaml", "names: [a]")
    (labels / "1.txt").write_bytes(b"\xff\xfe0")
    with pytest.raises(RequestError, match="not a text file in UTF-8"):
        read_annotations(labels, format="yolo")


@pytest.mark.skipif(not COCO_CC.exists(), reason="the COCO photographs are not beside this checkout")
def test_voc_and_yolo_of_the_same_photographs_agree() -> None:
    names = (SHARED / "darknet" / "names" / "coco.names").read_text().split("\n")[:80]
    voc = read_annotations(COCO_CC, "voc", names)
    yolo = [read_annotations(COCO_CC / split / "labels", classes=names) for split in ("train", "val")]
    assert voc.report.boxes == sum(each.report.boxes for each in yolo) == 354
    pictures = find_pictures([str(COCO_CC / "train"), str(COCO_CC / "val")])
    compared = 0
    for picture in pictures:
        ours = voc.truth(picture.key, 640, 640)
        theirs = next(filter(None, (each.truth(picture.key, 640, 640) for each in yolo)), None)
        assert ours is not None
        if theirs is None:
            assert len(ours) == 0  # one photograph has no text file
            continue
        assert ours.labels.tolist() == theirs.labels.tolist()
        compared += len(ours)
    assert compared == 354


@pytest.mark.skipif(not COCO_CC.exists(), reason="the COCO photographs are not beside this checkout")
def test_voc_corners_from_zero_lose_one_pixel() -> None:
    from PIL import Image

    names = (SHARED / "darknet" / "names" / "coco.names").read_text().split("\n")[:80]
    voc = read_annotations(COCO_CC / "val" / "Annotations", classes=names)
    yolo = read_annotations(COCO_CC / "val" / "labels", classes=names)
    compared = 0
    for picture in find_pictures([str(COCO_CC / "val")]):
        with Image.open(picture.path) as image:
            width, height = image.size
        ours, theirs = voc.truth(picture.key, height, width), yolo.truth(picture.key, height, width)
        if ours is None or theirs is None:
            continue
        difference = theirs.boxes - ours.boxes
        assert np.abs(difference[:, 2:]).max(initial=0) < 0.02
        assert difference[:, :2].max(initial=0) < 1.02
        assert difference[:, :2].min(initial=0) > -0.02
        compared += len(difference)
    assert compared > 50
