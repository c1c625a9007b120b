"""Mending a store: a damaged shard loses its ledger record, and so its existence; then `label` makes it again."""

from collections.abc import Iterable

from data.store.address import open_place
from data.store.layout import ledger_file
from data.store.place import Address
from data.store.reader import LabelStore
from data.store.verify import Damage, verify_shard


def drop_damaged_records(store: Address, damage: Iterable[Damage], *, values: bool) -> list[int]:
    """Delete the records of the shards that are named in the damage and have one; returns them, in order.

    Nothing else is touched: files whose bytes are right are kept by the worker that makes the shard again. Each shard
    is looked at once more, under its lock, as another worker may have mended it meanwhile. Damage to metadata or
    manifest can't be mended so, and nothing is dropped for it. OSError passes through.
    """
    shards = sorted({item.shard for item in damage if item.shard is not None and not item.unfinished})
    place, dropped = open_place(store), []
    for shard in shards:
        with place.lock(shard):
            if place.exists(ledger_file(shard)) and verify_shard(LabelStore.open(place), shard, values=values):
                place.delete(ledger_file(shard))
                dropped.append(shard)
    return dropped
