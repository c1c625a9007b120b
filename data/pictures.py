"""Pictures by key: `root label/relative path`, which names a picture wherever its folder lies."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from data.errors import RequestError
from data.images import IMAGE_SUFFIXES


@dataclass(frozen=True, slots=True)
class Picture:
    """A file that may be a picture. key: root label, then the path below that root with forward slashes."""

    key: str
    path: Path


@dataclass(frozen=True, slots=True)
class _Input:
    """One thing asked for: a folder, or one file of it. label: as given by the user, or None."""

    label: str | None
    root: Path
    file: Path | None


def find_pictures(inputs: Sequence[str]) -> list[Picture]:
    """All pictures of the inputs, sorted by key.

    An input is a folder, searched with its subfolders, or one picture file; `label=path` names the root oneself. The
    label of a root is otherwise its folder's name (for a file: that of the folder it lies in), with the names of
    parent folders before it, joined by "-", as far as roots of one name need that to be told apart. Files are known by
    their suffix, in either case (IMAGE_SUFFIXES); hidden files and folders are passed over. A picture that several
    inputs reach is one picture: it belongs to a root with a given label, else to the outermost root.
    Raises RequestError for an input that does not exist or cannot be read, a file without a picture's suffix, one label
    for two roots or two for one, a name that is not UTF-8, and where nothing was found.
    """
    parsed = [_parse(text) for text in inputs]
    labels = _label_roots(parsed)
    keys: dict[str, str] = {}
    for given in sorted(parsed, key=lambda each: (each.label is None, len(each.root.parts))):
        label, below = labels[given.root], len(os.path.join(given.root, ""))  # noqa: PTH118 (a trailing separator)
        for path in [str(given.file)] if given.file else _walk(str(given.root)):
            if path not in keys:
                keys[path] = f"{label}/{path[below:].replace(os.sep, '/')}"
    if not keys:
        raise RequestError(
            f"No pictures in {', '.join(inputs) or 'no folders at all'}: looked for files ending in "
            f"{', '.join(IMAGE_SUFFIXES)}, subfolders included. Name the folder that holds them."
        )
    for path, key in keys.items():
        if not key.isascii():
            _refuse_unless_utf8(path, key)
    return [Picture(key, Path(path)) for path, key in sorted(keys.items(), key=lambda pair: pair[1])]


def resolve_roots(labels: set[str], inputs: Sequence[str]) -> dict[str, Path]:
    """Where the roots of a store's keys lie now: label to absolute folder.

    labels: what root_label() gives for the keys. inputs: as for find_pictures; one input for one label is taken as it
    stands, whatever its name is. Raises RequestError for a label that no input answers to.
    """
    parsed = [_parse(text) for text in inputs]
    roots = _label_roots(parsed)
    found = {label: root for root, label in roots.items()}
    if len(labels) == 1 and len(roots) == 1 and parsed[0].label is None:
        return {next(iter(labels)): next(iter(roots))}
    missing = sorted(labels - found.keys())
    if missing:
        raise RequestError(
            f"No folder was given for the pictures of {', '.join(missing)}; those given stand for "
            f"{', '.join(sorted(found)) or 'none'}. Name each as label=folder, for example {missing[0]}=FOLDER."
        )
    return {label: found[label] for label in labels}


def root_label(key: str) -> str:
    """The root label of a key."""
    return key.partition("/")[0]


def relative_path(key: str) -> PurePosixPath:
    """The path of a key below its root."""
    return PurePosixPath(key.partition("/")[2])


def _parse(text: str) -> _Input:
    label, path = None, Path(text)
    if "=" in text and not path.exists():
        label, _, rest = text.partition("=")
        path = Path(rest)
        if not label or "/" in label or not rest:
            raise RequestError(f"{text} is no picture folder: expected an existing folder, a file, or label=folder.")
    if not path.exists():
        raise RequestError(f"{path} does not exist: expected a folder of pictures or a picture file.")
    path = Path(os.path.abspath(path))  # noqa: PTH100 (a linked folder keeps the name it was given by)
    if path.is_dir():
        return _Input(label, path, None)
    if not path.name.lower().endswith(IMAGE_SUFFIXES):
        raise RequestError(f"{path} is no picture by its name: expected a name ending in {', '.join(IMAGE_SUFFIXES)}.")
    return _Input(label, path.parent, path)


def _label_roots(inputs: Sequence[_Input]) -> dict[Path, str]:
    labels: dict[Path, str] = {}
    for each in inputs:
        if each.label is not None and labels.setdefault(each.root, each.label) != each.label:
            raise RequestError(f"{each.root} was given two labels, {labels[each.root]} and {each.label}: give it one.")
    depths = dict.fromkeys((each.root for each in inputs if each.root not in labels), 1)
    labels |= {root: _name(root, 1) for root in depths}
    while True:
        uses = Counter(labels.values())
        longer = [root for root in depths if uses[labels[root]] > 1 and depths[root] < len(root.parts)]
        if not longer:
            break
        for root in longer:
            depths[root] += 1
            labels[root] = _name(root, depths[root])
    for label, count in uses.items():
        if count > 1:
            roots = " and ".join(str(root) for root in labels if labels[root] == label)
            raise RequestError(f"{roots} would all be called {label}: name them apart, as label=folder.")
    return labels


def _name(root: Path, depth: int) -> str:
    return "-".join(part for part in root.parts[-depth:] if part != root.anchor) or "root"


def _walk(folder: str) -> Iterator[str]:
    """Picture files below a folder, without a stat per file. Links to folders are entered unless they lead back up."""
    pending: list[tuple[str, tuple[str, ...]]] = [(folder, (os.path.realpath(folder),))]
    while pending:
        current, above = pending.pop()
        for entry in _entries(current):
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                real = os.path.realpath(entry.path) if entry.is_symlink() else f"{above[-1]}{os.sep}{entry.name}"
                if real not in above:
                    pending.append((entry.path, (*above, real)))
            elif entry.name.lower().endswith(IMAGE_SUFFIXES) and entry.is_file():  # a broken link is none
                yield entry.path


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise RequestError(f"{folder} cannot be searched for pictures: {error.strerror}.") from error


def _refuse_unless_utf8(path: str, key: str) -> None:
    try:
        key.encode()
    except UnicodeEncodeError as error:
        raise RequestError(f"{path!a} has a name that is not UTF-8, which no store can hold: rename it.") from error
