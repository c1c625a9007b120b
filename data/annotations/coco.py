"""COCO instances: one JSON file for a data set; boxes are x, y, width, height in pixels with continuous edges."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data.annotations.files import read_text
from data.annotations.record import Object, Record
from data.errors import RequestError


def read_coco(path: Path) -> tuple[list[str], Iterator[Record]]:
    """(class names by ascending category id, one record per entry of `images`).

    An entry without annotations is a picture without objects. Raises RequestError for what is not COCO instances JSON.
    """
    document = _parse(path)
    try:
        names = {each["id"]: str(each["name"]) for each in sorted(document["categories"], key=lambda each: each["id"])}
        objects: dict[Any, list[Object]] = {each["id"]: [] for each in document["images"]}
        for annotation in document.pop("annotations"):
            objects[annotation["image_id"]].append(_object(annotation, names))
        records = [
            Record(str(each["file_name"]), str(path), _size(each), objects[each["id"]]) for each in document["images"]
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RequestError(
            f"{path} is not COCO instances JSON: it should have images (id, file_name), categories (id, name) and "
            f"annotations (image_id, category_id, bbox) that refer to each other, but {_explain(error)}."
        ) from error
    return list(names.values()), iter(records)


def _parse(path: Path) -> dict[str, Any]:
    def without_masks(value: dict[str, Any]) -> dict[str, Any]:
        value.pop("segmentation", None)  # nine tenths of the memory, and not used
        return value

    try:
        document = json.loads(read_text(path), object_hook=without_masks)
    except json.JSONDecodeError as error:
        raise RequestError(f"{path}, line {error.lineno}, is not well-formed JSON: {error.msg}.") from error
    except RecursionError as error:
        raise RequestError(f"{path} is JSON nested too deeply to be COCO instances.") from error
    if not isinstance(document, dict):
        raise RequestError(f"{path} is not COCO instances JSON: it holds no object with images and annotations.")
    return document


def _object(annotation: dict[str, Any], names: dict[Any, str]) -> Object:
    left, top, width, height = (float(value) for value in annotation["bbox"])
    box = (left, top, left + width, top + height)
    return Object(box, names[annotation["category_id"]], crowd=bool(annotation.get("iscrowd", 0)))


def _size(image: dict[str, Any]) -> tuple[float, float] | None:
    height, width = float(image.get("height") or 0), float(image.get("width") or 0)
    return (height, width) if height > 0 and width > 0 else None


def _explain(error: Exception) -> str:
    return f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else f"{error}"
