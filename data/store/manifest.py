"""`manifest.jsonl`: the fixed list of a store's pictures, one canonical JSON per line, in the order of axis 0."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.errors import RequestError
from data.store.canonical import canonical_json, parse_canonical

NAMED = 3


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """One picture. key: `root label/relative path`. size: bytes of the file. digest: hex SHA-256 of the file."""

    key: str
    size: int
    digest: str


@dataclass(frozen=True, slots=True, eq=False)
class Manifest:
    """All entries by column: a million of them take a tenth of the memory of as many objects.

    keys: N strings. sizes: int64 [N]. digests: uint8 [N, 32].
    """

    keys: tuple[str, ...]
    sizes: NDArray[np.int64]
    digests: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> ManifestEntry:
        return ManifestEntry(self.keys[index], int(self.sizes[index]), self.digests[index].tobytes().hex())

    def __iter__(self) -> Iterator[ManifestEntry]:
        return (self[i] for i in range(len(self)))


def make_manifest(entries: Iterable[ManifestEntry]) -> Manifest:
    """By column, in the order given. Raises RequestError for no entries, a key twice, or one that is not UTF-8."""
    listed = list(entries)
    if not listed:
        raise RequestError("No pictures to label: a store needs at least one.")
    keys = tuple(entry.key for entry in listed)
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            raise RequestError(f"The picture {key} is listed twice: keys must differ, name the roots differently.")
        if any("\ud800" <= letter <= "\udfff" for letter in key):
            raise RequestError(f"The file name {key!r} is not UTF-8: rename the picture.")
        seen.add(key)
    digests = np.frombuffer(b"".join(bytes.fromhex(entry.digest) for entry in listed), np.uint8)
    return Manifest(keys, np.array([entry.size for entry in listed], np.int64), digests.reshape(len(keys), 32))


def manifest_bytes(manifest: Manifest) -> bytes:
    """Content of `manifest.jsonl`; its SHA-256 is the `manifest_sha256` of the attributes."""
    lines = (canonical_json({"key": e.key, "size": e.size, "digest": e.digest}) for e in manifest)
    return b"".join(line + b"\n" for line in lines)


def parse_manifest(data: bytes) -> Manifest:
    """The inverse of `manifest_bytes`. Raises ValueError naming the first line that is not an entry."""
    entries = []
    for number, line in enumerate(data.splitlines(), 1):
        try:
            entries.append(ManifestEntry(**parse_canonical(line)))
        except (ValueError, TypeError) as error:
            raise ValueError(f"line {number}: {error}") from error
    return make_manifest(entries)


def require_same_pictures(existing: Manifest, wanted: Manifest, store: str) -> None:
    """Refuse to go on with another list of pictures: the order of axis 0 is fixed when a store is made.

    Raises RequestError with the counts and the first pictures that were removed, added, changed, or moved in the order.
    """
    if existing.keys == wanted.keys and np.array_equal(existing.digests, wanted.digests):
        return
    old = {key: row for row, key in enumerate(existing.keys)}
    new = {key: row for row, key in enumerate(wanted.keys)}
    removed = [key for key in existing.keys if key not in new]
    added = [key for key in wanted.keys if key not in old]
    changed = [key for key in existing.keys if key in new and existing[old[key]].digest != wanted[new[key]].digest]
    findings = [
        f"{len(keys)} {word} ({', '.join(keys[:NAMED])}{', …' if len(keys) > NAMED else ''})"
        for word, keys in (("missing", removed), ("new", added), ("changed", changed))
        if keys
    ] or ["the same pictures in another order"]
    raise RequestError(
        f"{store} was made from another list of pictures ({len(existing)} there, {len(wanted)} given): "
        f"{'; '.join(findings)}. Give the same pictures, or label these into a new store."
    )
