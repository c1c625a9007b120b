"""The writing protocol: a whole shard appears in the store, or nothing that any reader would look at."""

import errno
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from data.errors import DiskFullError, RequestError, WorkLeftError
from data.store.canonical import sha256_file
from data.store.create import codec_pipeline
from data.store.files import sync, write_synced
from data.store.layout import (
    FEATURES,
    IMAGE_DIGEST,
    IMAGE_KEY,
    IMAGE_SIZE,
    IMAGE_STATUS,
    SOFT_LABELS,
    array_file,
    ledger_file,
)
from data.store.ledger import LedgerRecord, parse_record, record_bytes
from data.store.place import Place
from data.store.reader import LabelStore
from data.store.rows import ShardRows, require_publishable

ATTEMPTS = 5

Files = Mapping[str, tuple[int, str]]


def publish_shard(
    store: LabelStore, shard: int, rows: ShardRows, *, on_step: Callable[[str], None] = lambda step: None
) -> bool:
    """Write one shard and its ledger record; True if this call published it, False if another had before.

    1. Stage: zarr writes every shard file in a folder of this process, under a copy of the store's metadata; each file
       is synced and hashed. The record is staged beside them.
    2. Place: each file is renamed into the store, unless equal bytes lie there already, so that the files of a finished
       shard keep their inode; folders are synced; what lies there is read back and must hash to what was staged.
    3. Publish: the record is linked into `ledger/`, which fails if there is one: the first wins. Folder synced.

    In a bucket 2 puts each object, and 3 puts the record if there is none; nothing needs a sync.

    A kill between any two writes leaves staging that `clean_staging` removes, and perhaps shard files without a record,
    which no reader looks at and the next worker replaces or keeps. Workers on the same shard: a lock lets one at a time
    do 2 and 3, and the record found there ends the work of the others. Where there are no locks (a bucket, some file
    systems, or `STORE.work/` deleted meanwhile) two may interleave, which matters only if their bytes differ: then
    either may find files or a record of the other's. A record that describes the files in place wins, whosever it is.
    Otherwise the finder puts all of its own files into place again, which is a whole shard, and its own record
    atomically over the other's. The last to look leaves record and files that agree, whichever of the two they are.

    on_step: called after every write with what was done. Raises WorkLeftError when the file system fails,
    StoreGrownError when the store is another one by now (it can't grow between that look and the record), DiskFullError
    with the bytes needed and free when the disk is full (the staged shard is removed), RequestError when this process
    would write other bytes than the store's other workers or a picture changed, ValueError for rows that are not of
    this shard.
    """
    first, count = store.shard_range(shard)
    stop = first + count
    require_publishable(
        rows,
        store.manifest.keys[first:stop],
        store.manifest.digests[first:stop],
        store.attributes.label_shape,
        store.features,
    )
    if codec_pipeline() != store.attributes.run.codec_pipeline:
        raise RequestError(
            f"{store.path} is written by zarr's codec pipeline {store.attributes.run.codec_pipeline}, not by "
            f"{codec_pipeline()}: set ZARR_CODEC_PIPELINE__PATH to the former."
        )
    place, record = store.place, ledger_file(shard)
    values = _arrays(rows)
    staged: dict[str, tuple[int, str]] = {}
    try:
        with place.staging() as folder:
            on_step("staging folder made")
            if place.exists(record):
                return False
            for name in store.array_names:
                _stage(store, name, values[name], first, folder)
                file = array_file(name, values[name].ndim, shard)
                sync(folder / file)
                staged[file] = sha256_file(folder / file)
                on_step(f"{file} staged")
            content = LedgerRecord(shard, first, count, tuple(rows.rejected), staged, store.metadata.sha256)
            write_synced(folder / "record.json", record_bytes(content))
            on_step("record staged")
            with place.lock(shard) as locked:
                store.require_same_generation()
                return _publish(place, folder, staged, record, locked, on_step)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise WorkLeftError(
                f"Shard {shard} of {store.path} could not be written: {error}. The same command tries it again."
            ) from error
        rest = sum(array.nbytes for name, array in values.items() if array_file(name, array.ndim, shard) not in staged)
        needed = sum(size for size, _ in staged.values()) + rest
        raise DiskFullError(
            f"The disk is full: shard {shard} of {store.path} needs up to {needed} bytes, "
            f"{place.room()} are free. Nothing of it was left behind; make room and run the same "
            "command again."
        ) from error


def _arrays(rows: ShardRows) -> dict[str, NDArray[Any]]:
    keys: NDArray[Any] = np.array(rows.keys, np.dtypes.StringDType())
    return {
        SOFT_LABELS: rows.soft_labels,
        IMAGE_KEY: keys,
        IMAGE_SIZE: rows.sizes,
        IMAGE_DIGEST: rows.digests,
        IMAGE_STATUS: rows.status,
        **{f"{FEATURES}/{tap}": values for tap, values in rows.features.items()},
    }


def _stage(store: LabelStore, name: str, values: NDArray[Any], first: int, folder: Path) -> None:
    (folder / name).mkdir(parents=True)
    (folder / name / "zarr.json").write_bytes(store.place.read(f"{name}/zarr.json"))
    # an inner chunk equal to the fill value would be left out, and "all zeros" would not differ from "never written"
    array = zarr.open_array(folder / name, mode="r+").with_config({"write_empty_chunks": True})
    array[first : first + len(values)] = values


def _publish(
    store: Place, staging: Path, files: Files, record: str, locked: bool, on_step: Callable[[str], None]
) -> bool:
    for _ in range(ATTEMPTS):
        if _describes(store, record):
            return False
        for file, entry in files.items():
            if not store.holds(file, entry):
                store.put(staging / file, file)
                on_step(f"{file} in place")
        store.settle(files)
        on_step("folders synced")
        if not _hold(store, files):
            continue
        try:
            store.put_new(staging / "record.json", record)
        except FileExistsError:
            if _describes(store, record):
                return False
            store.put(staging / "record.json", record)
        on_step("record published")
        store.settle([record])
        on_step("ledger synced")
        if locked or _hold(store, files):
            return True
    raise WorkLeftError(
        f"The files that {record} names in {store} do not stay as written: the disk is failing, or another worker "
        "writes other values. Verify the store, then run the same command again."
    )


def _describes(store: Place, record: str) -> bool:
    try:
        content = store.read(record)
    except FileNotFoundError:
        return False
    try:
        files = parse_record(content).files
    except ValueError:  # it was altered and describes nothing
        return False
    return _hold(store, files)


def _hold(store: Place, files: Files) -> bool:
    return all(store.holds(file, entry) for file, entry in files.items())
