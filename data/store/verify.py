"""Is a store whole, unchanged, and fit to be read? Every byte of every file is looked at."""

from collections.abc import Callable
from dataclasses import dataclass

from data.errors import WorkLeftError
from data.prefetch import map_ahead
from data.store.address import open_place
from data.store.damage import StoreDamageError
from data.store.layout import GROUP, MANIFEST, array_file, ledger_file
from data.store.place import Address, Place
from data.store.reader import LabelStore
from data.store.rows import require_publishable


@dataclass(frozen=True, slots=True)
class Damage:
    """shard: None for a file that belongs to no shard. file: path inside the store.

    unfinished: no record and no shard file, as if nobody had begun the shard; the same label command makes it.
    stray: a file that the store doesn't know.
    """

    shard: int | None
    file: str
    problem: str
    unfinished: bool = False
    stray: bool = False


def verify_store(
    address: Address | Place,
    progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    values: bool = True,
    threads: int = 1,
) -> list[Damage]:
    """Everything wrong with a store, in the order of its shards; empty when it is whole.

    Every byte of metadata, manifest, ledger and shard files is read and compared with its digest; missing shards and
    files that belong to nobody are found too. values: each shard whose digests are right is also decoded and must hold
    what may be published: keys and digests of the manifest, a verdict on every picture, finite labels. That finds what
    was written wrongly in the first place, and a zarr that reads it otherwise. A tap whose whole folder was deleted is
    no damage. threads: shards looked at beside one another; each holds one in memory if values are read.

    progress: called after each shard. Raises RequestError where there is no store, StoreGrownError where it grows
    meanwhile; OSError passes through.
    """
    try:
        place = open_place(address)
        store = LabelStore.open(place)
    except StoreDamageError as error:
        # without its metadata nothing can be said of the rest
        return [Damage(None, error.file, error.problem)]
    known = {GROUP, MANIFEST, *(file for file in store.metadata.files if place.exists(file))}
    known.update(file for shard in range(store.shard_count) for file in [*_files(store, shard), ledger_file(shard)])
    found: list[Damage] = []
    looked_at = map_ahead(
        lambda shard: verify_shard(store, shard, values=values),
        range(store.shard_count),
        threads=threads,
        ahead=2 * threads,
    )
    for shard, damage in enumerate(looked_at):
        found += damage
        progress(shard + 1, store.shard_count)
    strays = [
        Damage(None, file, "the file belongs to nothing in the store", stray=True)
        for file in place.files()
        if file not in known
    ]
    return found + strays


def verify_shard(store: LabelStore, shard: int, *, values: bool) -> list[Damage]:
    """Everything wrong with one shard, as `verify_store` finds it."""
    files = _files(store, shard)
    if not store.has_record(shard):
        begun = any(store.place.exists(file) for file in files)
        problem = "files of the shard are there, but no ledger record" if begun else "the shard is unfinished"
        return [Damage(shard, ledger_file(shard), problem, unfinished=not begun)]
    try:
        record = store.record(shard)
    except StoreDamageError as error:
        return [Damage(shard, error.file, error.problem)]
    found = []
    for file in files:
        entry = record.files.get(file)
        if entry is None:
            found.append(Damage(shard, file, "the shard's record does not name this file"))
        elif problem := _altered(store.place, file, entry):
            found.append(Damage(shard, file, problem))
    if found:
        store.require_same_generation()
    return found or (_verify_values(store, shard) if values else [])


def _altered(place: Place, file: str, entry: tuple[int, str]) -> str:
    """How a file differs from its entry in the record, or ""."""
    try:
        if (size := place.size(file)) != entry[0]:
            return f"the file has {size} bytes, {entry[0]} were written"
        return "" if place.sha256(file) == entry else "the file was altered"
    except FileNotFoundError:
        return "the file is missing"


def _verify_values(store: LabelStore, shard: int) -> list[Damage]:
    first, count = store.shard_range(shard)
    manifest = store.manifest
    try:
        rows = store.read_shard(shard)
    except StoreDamageError as error:
        return [Damage(shard, error.file, error.problem)]
    try:
        require_publishable(
            rows,
            manifest.keys[first : first + count],
            manifest.digests[first : first + count],
            store.attributes.label_shape,
            store.features,
        )
    except (ValueError, WorkLeftError) as error:
        return [Damage(shard, ledger_file(shard), f"what the shard holds should not have been written: {error}")]
    return []


def _files(store: LabelStore, shard: int) -> list[str]:
    return [array_file(name, store.dimensions(name), shard) for name in store.array_names]
