"""The front door: which format a path holds, and its annotations."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from data.annotations.annotation_set import AnnotationSet, collect
from data.annotations.coco import read_coco
from data.annotations.files import files_below
from data.annotations.voc import read_voc
from data.annotations.yolo import NAMES_FILE, looks_like_yolo, read_yolo
from data.errors import RequestError

Format = Literal["voc", "coco", "yolo"]


def read_annotations(
    path: Path | str,
    format: Format | None = None,
    classes: Sequence[str] | None = None,
    drop_other_classes: bool = False,
) -> AnnotationSet:
    """All annotations of a path.

    path: for VOC a folder with XML files in it or in its subfolders; for COCO a JSON file, or a folder with one; for
    YOLO a folder with text files, a data set's folder or its YAML file. format: recognised from the files if None.
    classes: the class list to use, in this order; an object of another class is refused, or with drop_other_classes
    left out and counted. Without it the format's own list counts (VOC has none: the names found, sorted).
    Raises RequestError, with the file and where possible the line, for whatever cannot be read so.
    """
    path = Path(path)
    if not path.exists():
        raise RequestError(f"{path} does not exist: expected annotations in VOC, COCO or YOLO format.")
    match format or _recognise(path):
        case "voc":
            annotations = collect(read_voc(path), False, None, classes, drop_other_classes)
        case "coco":
            known, records = read_coco(_the_json_file(path))
            annotations = collect(records, False, known, classes, drop_other_classes)
        case "yolo":
            known, records = read_yolo(path, classes)
            annotations = collect(records, True, known, classes, drop_other_classes)
    if not annotations.names:
        raise RequestError(f"{path} holds no annotations: expected VOC XML, COCO JSON or YOLO text files.")
    return annotations


def _recognise(path: Path) -> Format:
    if path.is_file():
        suffixes: dict[str, Format] = {".json": "coco", ".yaml": "yolo", ".yml": "yolo"}
        if path.suffix.lower() not in suffixes:
            raise RequestError(f"{path} is no annotation file: expected COCO's .json, YOLO's .yaml, or a folder.")
        return suffixes[path.suffix.lower()]
    found: list[Format] = []
    if any(True for _ in files_below(path, ".xml")):
        found.append("voc")
    if any(True for _ in files_below(path, ".json")):
        found.append("coco")
    if any(each.name != NAMES_FILE and looks_like_yolo(each) for each in files_below(path, ".txt")):
        found.append("yolo")
    if len(found) != 1:
        what = "holds annotations of several formats" if found else "holds no annotations"
        raise RequestError(
            f"{path} {what} ({', '.join(found) or 'none of VOC XML, COCO JSON, YOLO text'}): name the folder or file "
            "that holds them, or the format by --annotation-format."
        )
    return found[0]


def _the_json_file(path: Path) -> Path:
    if path.is_file():
        return path
    files = list(files_below(path, ".json"))
    if len(files) != 1:
        raise RequestError(f"{path} holds {len(files)} JSON files: name the one with the instances.")
    return files[0]
