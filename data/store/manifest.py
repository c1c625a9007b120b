"""`manifest.jsonl`: the list of a store's pictures, one canonical JSON per line, in the order of axis 0.

Where a store has grown, lines with an empty key fill the shard up that was the last: they stand for no picture.
"""

import json
import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from json.encoder import encode_basestring

import numpy as np
from numpy.typing import NDArray

from data.errors import RequestError

NAMED = 3

_PLAIN = re.compile(rb'{"digest":"([0-9a-f]{64})","key":"([^"\\\x00-\x1f]*)","size":([0-9]+)}')


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """One picture. key: `root label/relative path`. size: bytes of the file. digest: hex SHA-256 of the file."""

    key: str
    size: int
    digest: str


GAP_ENTRY = ManifestEntry("", 0, "00" * 32)


@dataclass(frozen=True, slots=True, eq=False)
class Manifest:
    """All entries by column: a million of them take a tenth of the memory of as many objects.

    keys: N strings, "" for a gap. sizes: int64 [N]. digests: uint8 [N, 32].
    """

    keys: tuple[str, ...]
    sizes: NDArray[np.int64]
    digests: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.keys)

    def chosen(self, rows: Sequence[int]) -> "Manifest":
        """These rows, in the order given."""
        return Manifest(tuple(self.keys[row] for row in rows), self.sizes[list(rows)], self.digests[list(rows)])

    def pictures(self, first: int = 0, stop: int | None = None) -> int:
        """Rows that are no gaps, of all or from first to stop."""
        keys = self.keys[first:stop]
        return len(keys) - keys.count("")

    def __getitem__(self, index: int) -> ManifestEntry:
        return ManifestEntry(self.keys[index], int(self.sizes[index]), self.digests[index].tobytes().hex())

    def __iter__(self) -> Iterator[ManifestEntry]:
        return (self[i] for i in range(len(self)))


def make_manifest(entries: Iterable[ManifestEntry]) -> Manifest:
    """By column, in the order given. Raises RequestError for no entries, a key twice, or one that is not UTF-8."""
    keys, seen = list[str](), set[str]()
    sizes, digests = array("q"), bytearray()
    for entry in entries:
        if entry.key in seen:
            raise RequestError(
                f"The picture {entry.key} is listed twice: keys must differ, name the roots differently."
            )
        keys.append(entry.key)
        if entry.key:
            seen.add(entry.key)
        sizes.append(entry.size)
        digests += bytes.fromhex(entry.digest)
    if not seen:
        raise RequestError("No pictures to label: a store needs at least one.")
    for key in keys:
        try:
            key.encode()
        except UnicodeEncodeError as error:
            raise RequestError(f"The file name {key!r} is not UTF-8: rename the picture.") from error
    shape = (len(keys), 32)
    return Manifest(tuple(keys), np.array(sizes, np.int64), np.frombuffer(bytes(digests), np.uint8).reshape(shape))


def manifest_bytes(manifest: Manifest) -> bytes:
    """Content of `manifest.jsonl`; its SHA-256 is the `manifest_sha256` of the attributes."""
    out = bytearray()
    for key, size, digest in zip(manifest.keys, manifest.sizes.tolist(), manifest.digests, strict=True):
        # what canonical_json makes of it, in a quarter of the time
        out += f'{{"digest":"{digest.tobytes().hex()}","key":{encode_basestring(key)},"size":{size}}}\n'.encode()
    return bytes(out)


def parse_manifest(data: bytes) -> Manifest:
    """The inverse of `manifest_bytes`, of bytes whose digest was checked. Raises ValueError naming a bad line."""
    return make_manifest(_entry(number, line) for number, line in enumerate(data.splitlines(), 1))


def require_same_pictures(existing: Manifest, wanted: Manifest, store: str) -> None:
    """Refuse to go on with other pictures. Their order is the existing manifest's, whatever is wanted.

    Raises RequestError with the counts and the first pictures that were removed, added or changed.
    """
    if existing.keys == wanted.keys and np.array_equal(existing.digests, wanted.digests):
        return
    old = {key: row for row, key in enumerate(existing.keys) if key}
    new = {key: row for row, key in enumerate(wanted.keys)}
    removed = [key for key in old if key not in new]
    added = [key for key in wanted.keys if key not in old]
    changed = [key for key in old if key in new and existing[old[key]].digest != wanted[new[key]].digest]
    findings = [
        f"{len(keys)} {word} ({', '.join(keys[:NAMED])}{', …' if len(keys) > NAMED else ''})"
        for word, keys in (("missing", removed), ("new", added), ("changed", changed))
        if keys
    ]
    if findings:
        raise RequestError(
            f"{store} was made from another list of pictures ({len(old)} there, {len(wanted)} given): "
            f"{'; '.join(findings)}. Give the same pictures, add new ones with --add, or label these into a new store."
        )


def _entry(number: int, line: bytes) -> ManifestEntry:
    plain = _PLAIN.fullmatch(line)
    if plain is not None:  # every line but those whose key needs escapes
        return ManifestEntry(plain[2].decode(), int(plain[3]), plain[1].decode())
    try:
        return ManifestEntry(**json.loads(line))
    except (ValueError, TypeError) as error:
        raise ValueError(f"line {number}: {error}") from error
