"""Pascal VOC: one XML file per picture.

Corners count pixels from 1 and both belong to the box (VOC devkit, readme 'bounding box' and VOCevaldet.m's `+1`), so
the continuous edges are xmin − 1, ymin − 1, xmax, ymax. Tools that write corners from 0 thereby lose one pixel at the
left and top, which is within what annotators agree on.
"""

from collections.abc import Iterator
from math import nan
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

import defusedxml.ElementTree
from defusedxml import DefusedXmlException

from data.annotations.files import files_below, read_bytes
from data.annotations.record import Object, Record
from data.errors import RequestError


def read_voc(folder: Path) -> Iterator[Record]:
    """Every XML file below a folder. Raises RequestError for one that is not a VOC annotation, with its name."""
    for path in files_below(folder, ".xml"):
        root = _parse(path)
        if root.tag != "annotation":
            raise RequestError(f"{path} holds <{root.tag}>, not a VOC <annotation>: keep other XML files elsewhere.")
        objects = [_object(element, path, count) for count, element in enumerate(root.findall("object"), start=1)]
        yield Record(path.relative_to(folder).as_posix(), str(path), _size(root), objects)


def _parse(path: Path) -> Element:
    content = read_bytes(path)
    try:
        root: Element = defusedxml.ElementTree.fromstring(content)
    except ParseError as error:
        line = error.position[0]
        raise RequestError(f"{path}, line {line}, is not well-formed XML: mend or remove the file.") from error
    except (DefusedXmlException, ValueError, LookupError) as error:
        raise RequestError(f"{path} is XML that is not read (entities or an unknown encoding): rewrite it.") from error
    return root


def _size(root: Element) -> tuple[float, float] | None:
    try:
        height, width = (float(root.findtext(f"size/{side}", "")) for side in ("height", "width"))
    except ValueError:
        return None
    return (height, width) if height > 0 and width > 0 else None


def _object(element: Element, path: Path, count: int) -> Object:
    name = element.findtext("name", "").strip()
    try:
        # findtext takes the object's own box, not those of its parts (head, hand, foot), which lie deeper
        left, top, right, bottom = (
            float(element.findtext(f"bndbox/{c}", "")) for c in ("xmin", "ymin", "xmax", "ymax")
        )
    except ValueError as error:
        raise RequestError(
            f"{path}: object {count} has no box of four numbers, xmin to ymax: mend the file."
        ) from error
    if not name:
        raise RequestError(f"{path}: object {count} has no <name>: mend the file.")
    # To the letter, equal corners would be one pixel; in real files they are a slip of the hand.
    box = (left - 1, top - 1, right, bottom) if right > left and bottom > top else (nan, nan, nan, nan)
    return Object(box, name, difficult=element.findtext("difficult", "").strip().lower() in ("1", "true"))
