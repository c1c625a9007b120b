"""`verify` sees every harm to every file, and names the shard or the file."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from data.errors import RequestError
from data.store import publish
from data.store.damage import StoreDamageError
from data.store.files import files_below
from data.store.layout import array_file, ledger_file
from data.store.publish import publish_shard
from data.store.reader import LabelStore
from data.store.repair import drop_damaged_records
from data.store.verify import Damage, verify_store
from tests.reference_store import filled_rows, make_store


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    store = make_store(tmp_path / "store")
    for shard in store.pending_shards():
        publish_shard(store, shard, filled_rows(store, shard))
    return store.path


def owner(file: str) -> int | None:
    """The shard a file of the store belongs to, by its name."""
    name = file.rpartition("/")[2]
    if file.startswith("ledger/"):
        return int(name.removesuffix(".json"))
    return int(name.split(".")[1]) if name.startswith("c.") else None


def test_a_whole_store_has_no_damage(path: Path):
    told = []
    assert verify_store(path, lambda done, total: told.append((done, total))) == []
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_one_flipped_bit_in_any_file_is_found_and_placed(path: Path):
    for file in files_below(path):
        data = (path / file).read_bytes()
        for position in sorted({*range(0, len(data), max(1, len(data) // 12)), len(data) - 1}):
            altered = bytearray(data)
            altered[position] ^= 1 << position % 8
            (path / file).write_bytes(altered)
            damage = verify_store(path)
            assert [(d.shard, d.file) for d in damage] == [(owner(file), file)], (file, position)
        (path / file).write_bytes(data)
    assert verify_store(path) == []


@pytest.mark.parametrize("harm", ["delete", "truncate", "empty"])
def test_any_file_cut_short_or_deleted_is_found_and_placed(path: Path, harm: str):
    for file in files_below(path):
        data = (path / file).read_bytes()
        (path / file).unlink()
        if harm != "delete":
            (path / file).write_bytes(data[:-1] if harm == "truncate" else b"")
        damage = verify_store(path)
        assert [(d.shard, d.file) for d in damage] == [(owner(file), file)]
        assert not damage[0].unfinished
        (path / file).write_bytes(data)
    assert verify_store(path) == []


@pytest.mark.parametrize(
    "file",
    ["notes.txt", "ledger/00000003.json", "ledger/0000000.json", "soft_labels/c.3.0.0.0.0", "image/.c.1.tmp", "new/x"],
)
def test_a_file_of_nobody_is_found(path: Path, file: str):
    (path / file).parent.mkdir(exist_ok=True)
    (path / file).write_text("")
    assert verify_store(path) == [Damage(None, file, "the file belongs to nothing in the store", stray=True)]


def test_unfinished_shards_are_told_from_lost_records(path: Path):
    for file in files_below(path):
        if owner(file) == 1:
            (path / file).unlink()
    assert verify_store(path) == [Damage(1, "ledger/00000001.json", "the shard is unfinished", unfinished=True)]


def test_deleting_a_whole_tap_is_no_damage(path: Path):
    shutil.rmtree(path / "features" / "conv6")
    assert verify_store(path) == []


def test_a_folder_that_is_no_store_is_refused(tmp_path: Path):
    with pytest.raises(RequestError, match="not a label store"):
        verify_store(tmp_path / "absent")
    with pytest.raises(RequestError, match="not a label store"):
        verify_store(tmp_path)


def test_the_advice_in_the_error_mends_the_shard(path: Path):
    """Delete the record, label again: the altered file is replaced, the others keep their inode."""
    altered = path / "soft_labels" / "c.1.0.0.0.0"
    good = altered.read_bytes()
    altered.write_bytes(bytes(len(good)))
    with pytest.raises(StoreDamageError, match=r"Delete ledger/00000001\.json"):
        LabelStore.open(path).read_shard(1)
    (path / "ledger" / "00000001.json").unlink()
    inodes = {file: (path / file).stat().st_ino for file in files_below(path) if path / file != altered}
    store = LabelStore.open(path)
    assert store.pending_shards() == [1]
    publish_shard(store, 1, filled_rows(store, 1))
    assert verify_store(path) == []
    assert altered.read_bytes() == good
    assert {file: (path / file).stat().st_ino for file in inodes} == inodes


def test_what_was_written_wrongly_has_right_checksums_and_is_found_by_its_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    store = make_store(tmp_path / "store")
    monkeypatch.setattr(publish, "require_publishable", lambda *given: None)
    for shard in store.pending_shards():
        rows = filled_rows(store, shard)
        if shard == 0:
            rows.soft_labels[1] = np.nan
        if shard == 2:
            rows.status[0] = 0
        publish_shard(store, shard, rows)
    assert verify_store(store.path, values=False) == []
    nan, pending = verify_store(store.path)
    assert (nan.shard, nan.file, nan.problem) == (0, "soft_labels/c.0.0.0.0.0", "a labelled picture reads as NaN")
    assert (pending.shard, pending.file) == (2, ledger_file(2))
    assert pending.problem.endswith("a row is neither labelled nor rejected")


def test_any_number_of_threads_finds_the_same_in_the_same_order(path: Path):
    for shard in (0, 2):
        (path / array_file("soft_labels", 5, shard)).write_bytes(b"?")
    (path / "ledger/00000009.json").write_bytes(b"?")
    damage = verify_store(path)
    assert [item.shard for item in damage] == [0, 2, None]
    told = []
    assert verify_store(path, lambda done, total: told.append(done), threads=3) == damage
    assert told == [1, 2, 3]


@pytest.mark.parametrize("harm", ["shard file", "record"])
def test_repair_drops_the_records_of_damaged_shards_and_nothing_else(path: Path, harm: str):
    (path / (array_file("soft_labels", 5, 1) if harm == "shard file" else ledger_file(1))).write_bytes(b"?")
    (path / ledger_file(2)).unlink()
    (path / "stray").write_bytes(b"?")
    before = files_below(path)
    assert drop_damaged_records(path, verify_store(path), values=True) == [1]
    assert [file for file in before if file not in files_below(path)] == [ledger_file(1)]
    assert drop_damaged_records(path, verify_store(path), values=True) == []
    store = LabelStore.open(path)
    assert store.pending_shards() == [1, 2]
    for shard in store.pending_shards():
        assert publish_shard(store, shard, filled_rows(store, shard))
    (path / "stray").unlink()
    assert verify_store(path) == []


def test_what_another_worker_has_mended_meanwhile_is_left(path: Path):
    file = path / array_file("soft_labels", 5, 1)
    content = file.read_bytes()
    file.write_bytes(b"?")
    damage = verify_store(path)
    file.write_bytes(content)
    assert drop_damaged_records(path, damage, values=True) == []
    assert verify_store(path) == []


def test_damage_to_the_metadata_drops_nothing(path: Path):
    (path / "manifest.jsonl").write_bytes(b"?")
    before = files_below(path)
    damage = verify_store(path)
    assert [item.shard for item in damage] == [None]
    assert drop_damaged_records(path, damage, values=True) == []
    assert files_below(path) == before
