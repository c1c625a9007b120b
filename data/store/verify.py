"""Is a store whole and unchanged? Every byte of every file is read."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from data.store.canonical import sha256_file
from data.store.damage import StoreDamageError
from data.store.files import files_below
from data.store.layout import MANIFEST, array_file, ledger_file
from data.store.reader import LabelStore


@dataclass(frozen=True, slots=True)
class Damage:
    """shard: None for a file that belongs to no shard. file: path inside the store.

    unfinished: no record and no shard file, as if nobody had begun the shard; the same label command makes it.
    """

    shard: int | None
    file: str
    problem: str
    unfinished: bool = False


def verify_store(path: Path, progress: Callable[[int, int], None] = lambda done, total: None) -> list[Damage]:
    """Everything wrong with a store, in the order of its shards; empty when it is whole.

    Covers metadata, manifest, ledger and shard files, missing shards, and files that belong to nobody. A tap whose
    whole folder was deleted is no damage. progress: called after each shard. Raises RequestError where there is no
    store; OSError passes through.
    """
    try:
        store = LabelStore.open(path)
    except StoreDamageError as error:
        # without its metadata nothing can be said of the rest
        return [Damage(None, error.file, error.problem)]
    found: list[Damage] = []
    known = {"zarr.json", MANIFEST, *(file for file in store.metadata.files if (path / file).exists())}
    for shard in range(store.shard_count):
        files = [array_file(name, store.dimensions(name), shard) for name in store.array_names]
        known.update(files, [ledger_file(shard)])
        found += _verify_shard(store, shard, files)
        progress(shard + 1, store.shard_count)
    strays = [
        Damage(None, file, "the file belongs to nothing in the store")
        for file in files_below(path)
        if file not in known
    ]
    return found + strays


def _verify_shard(store: LabelStore, shard: int, files: list[str]) -> list[Damage]:
    if not (store.path / ledger_file(shard)).exists():
        begun = any((store.path / file).exists() for file in files)
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
        elif not (store.path / file).exists():
            found.append(Damage(shard, file, "the file is missing"))
        elif (size := (store.path / file).stat().st_size) != entry[0]:
            found.append(Damage(shard, file, f"the file has {size} bytes, {entry[0]} were written"))
        elif sha256_file(store.path / file) != entry:
            found.append(Damage(shard, file, "the file was altered"))
    return found
