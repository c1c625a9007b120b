"""Mending a store: a damaged shard loses its ledger record, and so its existence; then `label` makes it again."""

from collections.abc import Iterable
from pathlib import Path

from data.store.files import sync
from data.store.layout import ledger_file
from data.store.reader import LabelStore
from data.store.verify import Damage, verify_shard
from data.store.work import shard_lock


def drop_damaged_records(path: Path, damage: Iterable[Damage], *, values: bool) -> list[int]:
    """Delete the records of the shards that are named in the damage and have one; returns them, in order.

    Nothing else is touched: files whose bytes are right are kept by the worker that makes the shard again. Each shard
    is looked at once more, under its lock, as another worker may have mended it meanwhile. Damage to metadata or
    manifest can't be mended so, and nothing is dropped for it. OSError passes through.
    """
    shards = sorted({item.shard for item in damage if item.shard is not None and not item.unfinished})
    dropped = []
    for shard in shards:
        record = path / ledger_file(shard)
        with shard_lock(path, shard):
            if record.exists() and verify_shard(LabelStore.open(path), shard, values=values):
                record.unlink()
                sync(record.parent)
                dropped.append(shard)
    return dropped
