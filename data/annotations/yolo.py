"""YOLO: one text file per picture, a line per object: class number, centre x, centre y, width, height, all relative.

The class names lie in `classes.txt` (one a line) or under `names` in a data set's YAML file.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from data.annotations.files import files_below, read_text
from data.annotations.record import Object, Record
from data.errors import RequestError

NAMES_FILE = "classes.txt"
_YAML_FILES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")


def read_yolo(path: Path, classes: Sequence[str] | None) -> tuple[list[str], Iterator[Record]]:
    """(class names by number, one record per text file).

    path: a folder of text files, a data set's folder (its `labels` are read), or its YAML file. The names are looked
    for there and in the two folders above; without such a file, classes names the numbers.
    Raises RequestError where the names are missing, or for a line that is not an object of this format.
    """
    folder = path if path.is_dir() else path.parent
    names = _yaml_names(path) if path.is_file() else _find_names(folder)
    if names is None and classes is None:
        raise RequestError(
            f"The classes of {folder} have no names: put a {NAMES_FILE} (one name a line) or a data.yaml with `names` "
            "beside it, or give the classes."
        )
    names = list(classes or ()) if names is None else names
    labels = folder / "labels" if (folder / "labels").is_dir() else folder
    return names, _records(labels, names)


def looks_like_yolo(path: Path) -> bool:
    """Whether a text file begins with a line of five numbers."""
    first = read_text(path).strip().split("\n", 1)[0].split()
    try:
        return len([float(field) for field in first]) == 5
    except ValueError:
        return False


def _records(folder: Path, names: Sequence[str]) -> Iterator[Record]:
    for path in files_below(folder, ".txt"):
        if path.name != NAMES_FILE:
            lines = enumerate(read_text(path).splitlines(), start=1)
            objects = [_object(line, names, f"{path}, line {number}") for number, line in lines if line.strip()]
            yield Record(path.relative_to(folder).as_posix(), str(path), None, objects)


def _object(line: str, names: Sequence[str], where: str) -> Object:
    fields = line.split()
    try:
        number = int(fields[0])
        x, y, width, height = (float(field) for field in fields[1:])
    except ValueError as error:
        raise RequestError(f"{where}, is {line[:60]!r}: expected class x y width height, five numbers.") from error
    if not 0 <= number < len(names):
        raise RequestError(f"{where}, has class {number}, but {len(names)} classes are named: 0 to {len(names) - 1}.")
    return Object((x - width / 2, y - height / 2, x + width / 2, y + height / 2), names[number])


def _find_names(folder: Path) -> list[str] | None:
    for place in (folder, *folder.absolute().parents[:2]):
        if (place / NAMES_FILE).is_file():
            return [line.strip() for line in read_text(place / NAMES_FILE).rstrip().splitlines()]
        for name in _YAML_FILES:
            if (place / name).is_file():
                return _yaml_names(place / name)
    return None


def _yaml_names(path: Path) -> list[str]:
    try:
        document = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise RequestError(f"{path}{f', line {mark.line + 1},' if mark else ''} is not well-formed YAML.") from error
    names = document.get("names") if isinstance(document, dict) else None
    if isinstance(names, dict) and sorted(names, key=str) == sorted(range(len(names)), key=str):
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names:
        raise RequestError(f"{path} should have `names`: a list of class names, or numbers from 0 with their names.")
    return [str(name) for name in names]
