"""Finding and reading annotation files, with errors that a user can act on."""

import os
from collections.abc import Iterator
from pathlib import Path

from data.errors import RequestError


def files_below(folder: Path, suffix: str) -> Iterator[Path]:
    """Files ending in suffix (lower case; names in either case), sorted by path, nothing hidden."""
    for current, folders, names in os.walk(folder):
        folders[:] = sorted(each for each in folders if not each.startswith("."))
        for name in sorted(names):
            if name.lower().endswith(suffix) and not name.startswith("."):
                yield Path(current, name)


def read_bytes(path: Path) -> bytes:
    """The content. Raises RequestError if the file cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror}.") from error


def read_text(path: Path) -> str:
    """The content as UTF-8, with or without a byte order mark. Raises RequestError if it cannot be read as such."""
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RequestError(f"{path} is not a text file in UTF-8 (byte {error.start}): save it as such.") from error
