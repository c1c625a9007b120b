"""Which name in an annotation or a list means which picture, by their paths alone."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from data.errors import RequestError
from data.images import IMAGE_SUFFIXES

_SUFFIXES = (*IMAGE_SUFFIXES, ".xml", ".txt")

# Folders that tell pictures from annotations: the only parts in which the paths of the two must differ.
_KIND_FOLDERS = {"images", "jpegimages", "labels", "annotations", "obj_train_data", "", "."}

_Path = tuple[str, ...]


class Matcher:
    """Finds the names that mean pictures. names: paths with forward slashes, with or without a suffix.

    A picture is meant by its path below the root, folders like `images` and `labels` left aside; else by its path with
    the root label; else by its file name, if the folders of the one are the last folders of the other. Suffixes of
    files decide only where nothing else does. So `images/cam1/7.jpg` is meant by `labels/cam1/7.txt`, by `cam1/7` and
    by a lone `7.txt`, but not by `cam2/7.txt`.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._paths = [_essential(name) for name in names]
        self._by_path: dict[_Path, list[int]] = defaultdict(list)
        self._by_stem: dict[str, list[int]] = defaultdict(list)
        for row, path in enumerate(self._paths):
            self._by_path[path].append(row)
            self._by_stem[path[-1]].append(row)

    def match(self, keys: Iterable[str]) -> dict[str, int]:
        """Key of a picture to index of the name that means it; pictures that no name means are left out.

        Of several pictures that a name could mean, it means the one it fits better. Raises RequestError where two fit
        equally, or where two names fit one picture equally.
        """
        claims: dict[int, tuple[int, str]] = {}
        for key in keys:
            rank, rows = self._candidates(key)
            if not rows:
                continue
            if len(rows) > 1:
                raise RequestError(
                    f"Both {self._names[rows[0]]} and {self._names[rows[1]]} could belong to {key}: remove one, or "
                    "give both sides the same subfolders."
                )
            held = claims.get(rows[0])
            if held and held[0] == rank and held[1] != key:
                raise RequestError(
                    f"{self._names[rows[0]]} could belong to {held[1]} as well as to {key}: give both sides the same "
                    "subfolders, or leave the other pictures out."
                )
            if not held or rank < held[0]:
                claims[rows[0]] = (rank, key)
        return {key: row for row, (_, key) in claims.items()}

    def _candidates(self, key: str) -> tuple[int, Sequence[int]]:
        path, full = _essential(key.partition("/")[2]), _essential(key)
        if path in self._by_path:
            rank, rows = 0, self._by_path[path]
        elif full in self._by_path:
            rank, rows = 1, self._by_path[full]
        else:
            rank, rows = 2, [row for row in self._by_stem.get(path[-1], ()) if _agree(path, self._paths[row])]
        alike = [row for row in rows if _suffix(self._names[row]) == _suffix(key)]
        return 2 * rank + (not alike), alike or rows


def _essential(name: str) -> _Path:
    *folders, file = name.split("/")
    stem = file[: len(file) - len(_suffix(file))]
    return (*(folder for folder in folders if folder.lower() not in _KIND_FOLDERS), stem)


def _suffix(name: str) -> str:
    lower = name.lower()
    return next((suffix for suffix in _SUFFIXES if lower.endswith(suffix)), "")


def _agree(a: _Path, b: _Path) -> bool:
    shorter = min(len(a), len(b))
    return a[-shorter:] == b[-shorter:]
