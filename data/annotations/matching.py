"""Which annotation belongs to which picture, by their paths alone."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from data.errors import RequestError
from data.images import IMAGE_SUFFIXES

_ANNOTATION_SUFFIXES = (".xml", ".txt")

# Folders that tell pictures from annotations: the only parts in which the paths of the two must differ.
_KIND_FOLDERS = {"images", "jpegimages", "labels", "annotations", "obj_train_data"}


class Matcher:
    """Finds pictures' annotations. names: the annotations' paths, forward slashes, with or without a suffix.

    A picture's annotation has its path below the root, folders like `images` and `labels` left aside; else its path
    with the root label; else its file name, if the folders of one are the last folders of the other. Suffixes of files
    never matter. So `images/cam1/7.jpg` matches `labels/cam1/7.txt` and a lone `7.txt`, but not `cam2/7.txt`.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._paths = [_essential(name) for name in names]
        self._by_path: dict[tuple[str, ...], list[int]] = defaultdict(list)
        self._by_stem: dict[str, list[int]] = defaultdict(list)
        for row, path in enumerate(self._paths):
            self._by_path[path].append(row)
            self._by_stem[path[-1]].append(row)

    def match(self, keys: Iterable[str]) -> dict[str, int]:
        """Key of a picture to index of its annotation; pictures without one are left out.

        Of several pictures that one annotation could belong to, the one with the better match has it. Raises
        RequestError where that leaves two, or where a picture matches several annotations alike.
        """
        claims: dict[int, tuple[int, str]] = {}
        for key in keys:
            rank, rows = self._candidates(key)
            if not rows:
                continue
            if len(rows) > 1:
                raise RequestError(
                    f"{key} has more than one annotation: {self._names[rows[0]]} and {self._names[rows[1]]}. Remove "
                    "one, or give both sides the same subfolders."
                )
            held = claims.get(rows[0])
            if held and held[0] == rank and held[1] != key:
                raise RequestError(
                    f"{self._names[rows[0]]} could annotate {held[1]} as well as {key}: give both sides the same "
                    "subfolders, or leave the other pictures out."
                )
            if not held or rank < held[0]:
                claims[rows[0]] = (rank, key)
        return {key: row for row, (_, key) in claims.items()}

    def _candidates(self, key: str) -> tuple[int, Sequence[int]]:
        label, _, relative = key.partition("/")
        path = _essential(relative)
        for rank, tried in enumerate((path, _essential(f"{label}/{relative}"))):
            if tried in self._by_path:
                return rank, self._by_path[tried]
        return 2, [row for row in self._by_stem.get(path[-1], ()) if _one_ends_in_other(path, self._paths[row])]


def _essential(name: str) -> tuple[str, ...]:
    path = PurePosixPath(name)
    stem = path.stem if path.suffix.lower() in (*IMAGE_SUFFIXES, *_ANNOTATION_SUFFIXES) else path.name
    return (*(part for part in path.parts[:-1] if part.lower() not in _KIND_FOLDERS), stem)


def _one_ends_in_other(a: tuple[str, ...], b: tuple[str, ...]) -> bool:
    shorter = min(len(a), len(b))
    return a[-shorter:] == b[-shorter:]
