"""Reading a store: finished shards only, and an error naming the shard wherever a file is not what its record says."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.errors import RequestError, WorkLeftError
from data.pictures import root_label
from data.store.address import open_place
from data.store.canonical import sha256_bytes
from data.store.damage import StoreDamageError, StoreGrownError
from data.store.layout import (
    FEATURES,
    GROUP,
    IMAGE_DIGEST,
    IMAGE_KEY,
    IMAGE_SIZE,
    IMAGE_STATUS,
    LABELLED,
    MANIFEST,
    SOFT_LABELS,
    FeatureShape,
    array_file,
    ledger_file,
    shard_count,
    shard_range,
)
from data.store.ledger import LedgerRecord, finished_shards, parse_record
from data.store.manifest import Manifest, parse_manifest
from data.store.metadata import GroupMetadata, parse_group
from data.store.place import Address, Place
from data.store.rows import ShardRows, not_finite, pending_rows
from data.store.schema import StoreAttributes


class LabelStore:
    """An opened store. Metadata and manifest are checked once, here; files of a shard before each reading of them.

    Open it inside the process that reads: nothing of it should cross a fork. Once the store has grown, reading a shard
    raises StoreGrownError.
    """

    def __init__(self, place: Place, metadata: GroupMetadata, manifest: Manifest, arrays: dict[str, Any]) -> None:
        self.place = place
        self.metadata = metadata
        self.manifest = manifest
        self._arrays = arrays
        self._records: dict[int, LedgerRecord] = {}

    @classmethod
    def open(cls, store: Address | Place) -> "LabelStore":
        """Raises RequestError where there is no store, StoreDamageError for altered metadata or manifest."""
        place = open_place(store)
        while True:
            content = _group_file(place)
            try:
                return cls._opened(place, content)
            except StoreDamageError:
                # A store that grew between two of these files is whole: it is another one now (`grow_store`).
                if _group_file(place) == content:
                    raise

    @classmethod
    def _opened(cls, place: Place, content: bytes) -> "LabelStore":
        """content: of the group's zarr.json."""
        try:
            metadata = parse_group(content)
        except ValueError as error:
            raise StoreDamageError(str(place), None, GROUP, str(error)) from error
        arrays = {}
        for file, digest in metadata.files.items():
            folder = file.rpartition("/")[0]
            if file.startswith(f"{FEATURES}/") and not place.holds_folder(folder):
                continue  # somebody wanted the space back: each tap may be deleted on its own
            _checked(place, file, digest)
            if file.count("/") > 1 or file.startswith(SOFT_LABELS):
                arrays[folder] = place.open_array(folder)
        manifest = parse_manifest(_checked(place, MANIFEST, metadata.attributes.manifest_sha256))
        return cls(place, metadata, manifest, arrays)

    @property
    def path(self) -> Address:
        """Where the store lies, as it was given."""
        return self.place.address

    @property
    def attributes(self) -> StoreAttributes:
        """The group attribute `distill`."""
        return self.metadata.attributes

    @property
    def features(self) -> dict[str, FeatureShape]:
        """Taps whose arrays are there, to [C, H', W']."""
        prefix = f"{FEATURES}/"
        return {
            name.removeprefix(prefix): array.shape[1:]
            for name, array in self._arrays.items()
            if name.startswith(prefix)
        }

    @property
    def array_names(self) -> list[str]:
        """Arrays that are there, sorted."""
        return sorted(self._arrays)

    def __len__(self) -> int:
        """Rows, the gaps of a store that has grown included."""
        return len(self.manifest)

    @property
    def pictures(self) -> int:
        """Rows that are pictures."""
        return self.manifest.pictures()

    def pictures_of(self, shard: int) -> int:
        """Of one shard."""
        first, count = self.shard_range(shard)
        return self.manifest.pictures(first, first + count)

    @property
    def root_labels(self) -> set[str]:
        """Of all keys."""
        return {root_label(key) for key in self.manifest.keys if key}

    @property
    def shard_count(self) -> int:
        """Shards of the whole store, finished or not."""
        return shard_count(len(self), self.attributes.shard_size)

    def shard_range(self, shard: int) -> tuple[int, int]:
        """First row of a shard, and how many it has."""
        return shard_range(shard, len(self), self.attributes.shard_size)

    def finished_shards(self) -> list[int]:
        """Shards with a record, as of now."""
        return [shard for shard in finished_shards(self.place) if shard < self.shard_count]

    def has_record(self, shard: int) -> bool:
        """Whether a shard is finished, as of now."""
        return self.place.exists(ledger_file(shard))

    def pending_shards(self) -> list[int]:
        """Shards without a record, as of now."""
        return sorted({*range(self.shard_count)}.difference(self.finished_shards()))

    def pending_rows(self, shard: int) -> ShardRows:
        """The shard's rows before any work, to be filled and handed to `publish_shard`."""
        first, count = self.shard_range(shard)
        return pending_rows(self.manifest, first, count, self.attributes.label_shape, self.features)

    def record(self, shard: int) -> LedgerRecord:
        """The shard's ledger record, read once. Raises StoreDamageError if it is missing, altered or another's."""
        if shard not in self._records:
            self._records[shard] = self._read_record(shard)
        return self._records[shard]

    def read_shard(self, shard: int, features: Iterable[str] | None = None) -> ShardRows:
        """One finished shard. features: taps to read, None for all. Raises as `read_rows` does."""
        first, count = self.shard_range(shard)
        stop = first + count
        taps = self.features if features is None else list(features)
        rows = ShardRows(
            self.read_rows(SOFT_LABELS, first, stop),
            {tap: self.read_rows(f"{FEATURES}/{tap}", first, stop) for tap in taps},
            tuple(str(key) for key in self.read_rows(IMAGE_KEY, first, stop)),
            self.read_rows(IMAGE_SIZE, first, stop),
            self.read_rows(IMAGE_DIGEST, first, stop),
            self.read_rows(IMAGE_STATUS, first, stop),
            list(self.record(shard).rejected),
        )
        if rows.keys != self.manifest.keys[first:stop]:
            raise self._damage(shard, IMAGE_KEY, "the keys are not those of the manifest")
        if not np.array_equal(rows.digests, self.manifest.digests[first:stop]):
            raise self._damage(shard, IMAGE_DIGEST, "the digests are not those of the manifest")
        self.require_finite(shard, SOFT_LABELS, rows.soft_labels, rows.status)
        for tap, values in rows.features.items():
            self.require_finite(shard, f"{FEATURES}/{tap}", values, rows.status)
        return rows

    def read_rows(self, array: str, start: int, stop: int) -> NDArray[Any]:
        """Pictures start … stop of one array, all of one finished shard; whole inner chunks are read fastest.

        Raises RequestError for an array that is not there, StoreDamageError for a file that is not as its record says.
        """
        if array not in self._arrays:
            raise RequestError(f"{self.path} has no array {array}. It has: {', '.join(self.array_names)}.")
        shard = start // self.attributes.shard_size
        first, count = self.shard_range(shard)
        if not first <= start < stop <= first + count:
            raise ValueError(f"pictures {start} to {stop} are not of one shard")
        file = array_file(array, self._arrays[array].ndim, shard)
        entry = self.record(shard).files.get(file)
        if entry is None:
            raise self._damage(shard, array, "its record does not name this file")
        try:
            size = self.place.size(file)
        except FileNotFoundError as error:
            raise self._damage(shard, array, "the file is missing") from error
        if size != entry[0]:
            raise self._damage(shard, array, f"the file has {size} bytes, {entry[0]} were written")
        with self.place.reading():
            try:
                return np.asarray(self._arrays[array][start:stop])
            except (ValueError, RuntimeError) as error:  # crc32c of the index or of an inner chunk, or what came of one
                raise self._damage(shard, array, f"the file was altered ({error})") from error

    def require_finite(self, shard: int, array: str, values: NDArray[np.float16], status: NDArray[np.uint8]) -> None:
        """Raises StoreDamageError if a labelled picture of the shard reads as NaN, as what was never written does."""
        if (not_finite(values) & (status == LABELLED)).any():
            raise self._damage(shard, array, "a labelled picture reads as NaN")

    def require_same_generation(self) -> None:
        """Raises StoreGrownError if the store has grown since it was opened (`grow_store`)."""
        if sha256_bytes(self.place.read(GROUP)) != self.metadata.sha256:
            raise StoreGrownError(str(self.path))

    def dimensions(self, array: str) -> int:
        """Number of axes."""
        return int(self._arrays[array].ndim)

    def _damage(self, shard: int, array: str, problem: str) -> WorkLeftError:
        return self._damage_of(shard, array_file(array, self._arrays[array].ndim, shard), problem)

    def _damage_of(self, shard: int, file: str, problem: str) -> WorkLeftError:
        """Of a store that has grown no file is damaged by being another one."""
        try:
            self.require_same_generation()
        except StoreGrownError as error:
            return error
        except OSError:  # without it the file is damaged all the more
            pass
        return StoreDamageError(str(self.path), shard, file, problem)

    def _read_record(self, shard: int) -> LedgerRecord:
        file = ledger_file(shard)
        try:
            content = self.place.read(file)
        except FileNotFoundError as error:
            raise self._damage_of(shard, file, "there is no record: the shard is unfinished") from error
        try:
            record = parse_record(content)
        except ValueError as error:
            raise self._damage_of(shard, file, str(error)) from error
        if (record.shard, record.first, record.count) != (shard, *self.shard_range(shard)):
            raise self._damage_of(shard, file, "the record is of another shard")
        if record.attributes_sha256 != self.metadata.sha256:
            raise self._damage_of(shard, file, "the record is of a store with other metadata")
        return record


def _group_file(place: Place) -> bytes:
    """Content of the group's zarr.json. Raises RequestError where there is no store."""
    try:
        return place.read(GROUP)
    except FileNotFoundError as error:
        if not place.exists(MANIFEST):
            raise RequestError(f"{place} is not a label store. Name the one given to label --store.") from error
        raise StoreDamageError(str(place), None, GROUP, "the file is missing") from error


def _checked(store: Place, file: str, digest: str) -> bytes:
    """A file's content, which has this digest."""
    try:
        content = store.read(file)
    except FileNotFoundError as error:
        raise StoreDamageError(str(store), None, file, "the file is missing") from error
    if sha256_bytes(content) != digest:
        raise StoreDamageError(str(store), None, file, "the file was altered")
    return content
