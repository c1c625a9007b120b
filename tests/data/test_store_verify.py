"""`verify` sees every harm to every file, and names the shard or the file."""

import os
import shutil
from pathlib import Path

import pytest

from data.errors import RequestError
from data.store.damage import StoreDamageError
from data.store.files import files_below
from data.store.publish import publish_shard
from data.store.reader import LabelStore
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
    assert verify_store(path) == [Damage(None, file, "the file belongs to nothing in the store")]


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
