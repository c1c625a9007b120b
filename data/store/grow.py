"""A store that grows: new pictures as new shards behind those that are there, which stay as they are."""

import contextlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import zarr

from data.errors import RequestError, WorkLeftError
from data.store.canonical import sha256_bytes, sha256_file
from data.store.damage import StoreDamageError
from data.store.files import exchange, sync, sync_tree, write_synced
from data.store.folder_place import FolderPlace
from data.store.layout import GAP, GROUP, IMAGE_STATUS, LEDGER, MANIFEST, array_file, ledger_file
from data.store.ledger import LedgerRecord, record_bytes
from data.store.manifest import GAP_ENTRY, ManifestEntry, make_manifest, manifest_bytes
from data.store.metadata import GroupMetadata, group_bytes
from data.store.place import Address
from data.store.reader import LabelStore
from data.store.work import generation_lock, staging_folder


def grow_store(store: LabelStore, new: Sequence[ManifestEntry]) -> LabelStore:
    """Add pictures to a store, all at once; returns the store as it is then.

    The next generation is prepared beside the store: metadata of the longer arrays, the longer manifest, every file of
    a finished shard by a hard link, and every ledger record anew, for a record vouches for the metadata. The last shard
    is filled up with gaps, of which only its status file must say something. Then the two folders change places: a
    reader finds the one or the other. Shards without a record stay without.

    A worker that is labelling meanwhile publishes before or is refused after (`publish_shard`), where the file system
    has locks. Raises RequestError for a picture that is there already and as `growing_place` does, StoreGrownError for
    a store that has grown since it was opened, StoreDamageError where a record or a file of a shard is missing or
    damaged, WorkLeftError where the file system fails: the store is then as it was.
    """
    path = growing_place(store).path
    size = store.attributes.shard_size
    entries = (*store.manifest, *[GAP_ENTRY] * (-len(store) % size), *new)
    listed = manifest_bytes(make_manifest(entries))
    try:
        with staging_folder(path) as folder, generation_lock(path):
            store.require_same_generation()
            grown = folder / "store"
            _write_metadata(store, path, grown, len(entries), listed)
            _take_over_shards(store, path, grown)
            sync_tree(grown)
            _change_places(path.resolve(), grown)
    except OSError as error:
        raise WorkLeftError(f"{store.path} could not grow: {error}. It is as it was; try again.") from error
    return LabelStore.open(store.place)


def growing_place(store: LabelStore) -> FolderPlace:
    """Where a store lies that can grow. RequestError for one in a bucket, where nothing can change places."""
    if not isinstance(store.place, FolderPlace):
        raise RequestError(
            f"{store.path} can't grow in object storage: label the new pictures into a store of their own, and train "
            "from both"
        )
    return store.place


def settle_growth(path: Address) -> None:
    """Bring a store back that a kill left between its two names; call it before asking whether there is one.

    Only where folders can't be exchanged in one step (`exchange`) is there such a moment.
    """
    if not isinstance(path, Path):
        return
    before = _before(path.resolve())
    if before.exists():
        if path.exists():
            shutil.rmtree(before)
        else:
            before.rename(path.resolve())


def _write_metadata(store: LabelStore, path: Path, grown: Path, rows: int, listed: bytes) -> None:
    digests = {}
    for file in store.metadata.files:
        if not (path / file).exists():
            continue  # of a tap that was deleted
        (grown / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path / file, grown / file)
        if Path(file).parent.as_posix() in store.array_names:
            array = zarr.open_array((grown / file).parent, mode="r+")
            array.resize((rows, *array.shape[1:]))
        digests[file] = sha256_bytes((grown / file).read_bytes())
    attributes = replace(store.attributes, manifest_sha256=sha256_bytes(listed))
    write_synced(grown / GROUP, group_bytes(GroupMetadata(attributes, digests)))
    write_synced(grown / MANIFEST, listed)


def _take_over_shards(store: LabelStore, path: Path, grown: Path) -> None:
    (grown / LEDGER).mkdir()
    vouched = sha256_bytes((grown / GROUP).read_bytes())
    for shard in store.finished_shards():
        record = store.record(shard)
        files = {file: entry for file, entry in record.files.items() if file.partition("/c.")[0] in store.array_names}
        for file in files:
            _take_over(
                path.resolve() / file, grown / file, StoreDamageError(str(path), shard, file, "the file is missing")
            )
        if record.count < store.attributes.shard_size:
            filled_up = _fill_up(store, shard, grown)
            files[filled_up] = sha256_file(grown / filled_up)
        same = LedgerRecord(shard, record.first, store.attributes.shard_size, record.rejected, files, vouched)
        write_synced(grown / ledger_file(shard), record_bytes(same))


def _take_over(file: Path, link: Path, missing: StoreDamageError) -> None:
    try:
        os.link(file, link)
    except FileNotFoundError as error:
        raise missing from error


def _fill_up(store: LabelStore, shard: int, grown: Path) -> str:
    """Write the status of the last shard that was, now with gaps behind its pictures; returns the file."""
    first, count = store.shard_range(shard)
    status = np.full(store.attributes.shard_size, GAP, np.uint8)
    status[:count] = store.read_rows(IMAGE_STATUS, first, first + count)
    file = array_file(IMAGE_STATUS, 1, shard)
    (grown / file).unlink()  # the link, not the store's file
    zarr.open_array(grown / IMAGE_STATUS, mode="r+")[first : first + len(status)] = status
    return file


def _change_places(path: Path, grown: Path) -> None:
    """Afterwards `grown` is the store; what was is removed."""
    if exchange(grown, path):
        sync(path.parent)
        return
    before = _before(path)
    path.rename(before)
    grown.rename(path)
    sync(path.parent)
    with contextlib.suppress(OSError):
        shutil.rmtree(before)


def _before(path: Path) -> Path:
    return path.with_name(f"{path.name}.before-growing")
