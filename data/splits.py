"""Which pictures are for training and which are held out: by lists, or by a seed."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from data.errors import RequestError
from data.matching import Matcher


@dataclass(frozen=True, slots=True)
class Selection:
    """keys: the pictures that a list names, sorted. unknown: its entries that name none of the pictures."""

    keys: tuple[str, ...]
    unknown: tuple[str, ...]


def read_list(path: Path | str) -> list[str]:
    """The entries of an ImageSets list: one stem, file name or relative path per line, in the file's order.

    Blank lines and those that begin with "#" are passed over. In VOC's per-class lists ("2007_000027 -1") a second
    column of 1 or 0 (difficult only) means in, −1 out. Raises RequestError if the file cannot be read or lists nothing.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise RequestError(f"{path} cannot be read as a list of pictures: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise RequestError(f"{path} is not a list of pictures: it is no text in UTF-8.") from error
    entries = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    columns = [entry.split() for entry in entries]
    if all(len(each) == 2 and each[1] in ("-1", "0", "1") for each in columns):
        entries = [each[0] for each in columns if each[1] != "-1"]
    if not entries:
        raise RequestError(f"{path} lists no pictures: expected one file name, with or without its suffix, per line.")
    return entries


def select(entries: Iterable[str], keys: Iterable[str]) -> Selection:
    """The pictures that a list names, found as data/matching.py says: by stem, file name, or more of the path.

    Raises RequestError where an entry could mean several pictures, or where none of the entries means any.
    """
    names = list(dict.fromkeys(entries))
    found = Matcher(names).match(keys)
    if not found:
        raise RequestError(f"None of the {len(names)} listed pictures is there; the first is {names[0]}.")
    known = set(found.values())
    unknown = tuple(name for row, name in enumerate(names) if row not in known)
    return Selection(tuple(sorted(found)), unknown)


def split_by_seed(keys: Iterable[str], held_out: float, seed: int) -> tuple[list[str], list[str]]:
    """(training keys, held-out keys), both sorted; about the share held_out of the keys is held out.

    Where a picture goes depends on the seed and its key alone, so that pictures added later move no other one.
    Raises RequestError unless 0 <= held_out < 1.
    """
    if not 0 <= held_out < 1:
        raise RequestError(f"The held-out share is {held_out}: expected at least 0 and less than 1.")
    training: list[str] = []
    held: list[str] = []
    for key in sorted(keys):
        number = int.from_bytes(hashlib.sha256(f"{seed}\0{key}".encode()).digest()[:8], "big")
        (held if number < held_out * 2**64 else training).append(key)
    return training, held


def assert_disjoint(training: Mapping[str, bytes], held_out: Mapping[str, bytes]) -> None:
    """Refuse to train on what is held out. Both map a picture's key to the SHA-256 of its file.

    Raises RequestError, naming one pair and the number of pairs, if any content is on both sides.
    """
    keys = {digest: key for key, digest in held_out.items()}
    shared = [(key, keys[digest]) for key, digest in training.items() if digest in keys]
    if shared:
        first, second = min(shared)
        raise RequestError(
            f"{len(shared)} training pictures are held out too: {first} and {second} are the same file by content. "
            "Take them from one of the lists."
        )
