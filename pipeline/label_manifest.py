"""The manifest of the pictures asked for: hashed once when a store is made, compared when it is gone on with."""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np

from data.pictures import Picture
from data.prefetch import map_ahead
from data.store.manifest import Manifest, ManifestEntry, make_manifest
from pipeline.progress import Progress

GROUP = 64
UNKNOWN_DIGEST = "00" * 32


def hash_pictures(pictures: Sequence[Picture], threads: int, progress: Progress) -> Manifest:
    """Read and hash every file."""

    def entries() -> Iterator[ManifestEntry]:
        for made in map_ahead(
            lambda several: [hashed(each) for each in several], _groups(pictures), threads=threads, ahead=4 * threads
        ):
            yield from made
            progress.advance(len(made))

    return make_manifest(entries())


def hashed(picture: Picture) -> ManifestEntry:
    """One picture, read. OSError passes through."""
    data = picture.path.read_bytes()
    return ManifestEntry(picture.key, len(data), hashlib.sha256(data).hexdigest())


def without_copies(manifest: Manifest) -> Manifest:
    """Of the pictures with one content the first in the manifest's order."""
    _, firsts = np.unique(_as_scalars(manifest), return_index=True)
    firsts.sort()
    return manifest.chosen(firsts.tolist())


def expected_manifest(
    pictures: Sequence[Picture], existing: Manifest, threads: int, *, deduplicate: bool = False
) -> Manifest | None:
    """The manifest these files would give, judged by key and size alone: a resumed store is not hashed again.

    What changed without changing its size is found when the picture is read (`pipeline.label_input.load`).
    deduplicate: a file that is new to the store is read, and left out where the store has its content; None
    where that leaves nothing.
    """
    row_of = {key: row for row, key in enumerate(existing.keys)}
    digests = {digest.tobytes() for digest in existing.digests} if deduplicate else set()

    def entry(picture: Picture) -> ManifestEntry | None:
        size = picture.path.stat().st_size
        row = row_of.get(picture.key)
        if row is not None and existing.sizes[row] == size:
            return existing[row]
        if deduplicate:
            made = hashed(picture)
            return None if row is None and bytes.fromhex(made.digest) in digests else made
        return ManifestEntry(picture.key, size, UNKNOWN_DIGEST)

    made = map_ahead(
        lambda several: [entry(each) for each in several], _groups(pictures), threads=threads, ahead=4 * threads
    )
    entries = (found for several in made for found in several if found is not None)
    first = next(entries, None)
    return None if first is None else make_manifest(chain([first], entries))


def _groups(pictures: Sequence[Picture]) -> Iterator[Sequence[Picture]]:
    """Few enough to share out among threads, and enough to make a thread's wait for its turn worth it."""
    return (pictures[start : start + GROUP] for start in range(0, len(pictures), GROUP))


def _as_scalars(manifest: Manifest) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    digests = np.ascontiguousarray(manifest.digests)
    return digests.view(np.dtype((np.void, digests.shape[1]))).ravel()
