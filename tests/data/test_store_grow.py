"""A store that grows: what was there stays where it is, bit for bit, and what is new comes behind it."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import zarr

from data.errors import RequestError, WorkLeftError
from data.store import files, grow
from data.store.damage import StoreDamageError, StoreGrownError
from data.store.folder_place import FolderPlace
from data.store.grow import grow_store, settle_growth
from data.store.layout import GAP, GROUP, LABELLED, REJECTED, SOFT_LABELS, work_path
from data.store.manifest import ManifestEntry
from data.store.publish import publish_shard
from data.store.reader import LabelStore
from data.store.repair import drop_damaged_records
from data.store.slots import load_kept_slots
from data.store.verify import verify_shard, verify_store
from data.store.work import clean_staging
from tests.reference_store import (
    PICTURES,
    REJECTED_PICTURE,
    SHARD_SIZE,
    features_of,
    filled_rows,
    make_store,
    soft_labels_of,
)

ROOT = Path(__file__).parents[2]
GAPS = -PICTURES % SHARD_SIZE
NEW = 4


def new_entries(count: int = NEW, root: str = "more") -> list[ManifestEntry]:
    names = [f"{root}/{i:02d}.jpg" for i in range(count)]
    return [ManifestEntry(name, 7 + i, hashlib.sha256(name.encode()).hexdigest()) for i, name in enumerate(names)]


@pytest.fixture
def whole(tmp_path: Path) -> LabelStore:
    store = make_store(tmp_path / "store")
    for shard in range(store.shard_count):
        publish_shard(store, shard, filled_rows(store, shard))
    return store


def complete(store: LabelStore) -> None:
    for shard in store.pending_shards():
        publish_shard(store, shard, filled_rows(store, shard))


def inodes(store: Path) -> dict[str, int]:
    return {file: (store / file).stat().st_ino for file in files.files_below(store) if "/c." in file}


def test_rows_that_were_there_stay_and_new_ones_come_behind_a_gap(whole: LabelStore):
    before = inodes(whole.path)
    grown = grow_store(whole, new_entries())
    assert len(grown) == PICTURES + GAPS + NEW
    assert grown.pictures == PICTURES + NEW
    assert grown.finished_shards() == [0, 1, 2]
    assert grown.pending_shards() == [3, 4]
    assert grown.manifest.keys[:PICTURES] == whole.manifest.keys
    assert grown.manifest.keys[PICTURES : PICTURES + GAPS] == ("",) * GAPS
    assert [entry.key for entry in list(grown.manifest)[PICTURES + GAPS :]] == [entry.key for entry in new_entries()]
    complete(grown)
    assert verify_store(grown.path) == []
    after = inodes(grown.path)
    changed = {file for file in before if after[file] != before[file]}
    assert changed == {"image/status/c.2"}  # which says where the gaps are
    for row in range(len(grown)):
        key = grown.manifest.keys[row]
        shard = grown.read_shard(row // SHARD_SIZE)
        place = row % SHARD_SIZE
        if not key:
            assert shard.status[place] == GAP
            assert np.isnan(shard.soft_labels[place]).all()
            assert np.isnan(shard.features["conv6"][place]).all()
        elif row == REJECTED_PICTURE:
            assert shard.status[place] == REJECTED
        else:
            assert shard.status[place] == LABELLED
            assert np.array_equal(shard.soft_labels[place], soft_labels_of(row))
            assert np.array_equal(shard.features["conv6"][place], features_of(row))
    assert grown.record(1).rejected == whole.record(1).rejected


def test_plain_zarr_and_the_table_of_slots_see_the_gaps(whole: LabelStore):
    grown = grow_store(whole, new_entries())
    complete(grown)
    status = zarr.open_group(grown.path, mode="r")["image/status"]
    assert isinstance(status, zarr.Array)
    assert (np.asarray(status[:])[PICTURES : PICTURES + GAPS] == GAP).all()
    table = load_kept_slots(grown)
    assert table.status.tolist().count(LABELLED) == PICTURES + NEW - 1
    assert np.array_equal(table.dense(PICTURES + GAPS), soft_labels_of(PICTURES + GAPS).astype(np.float32))


def test_a_store_grows_again_and_before_it_is_complete(tmp_path: Path):
    store = make_store(tmp_path / "store")
    publish_shard(store, 1, filled_rows(store, 1))
    grown = grow_store(store, new_entries())
    assert grown.finished_shards() == [1]
    publish_shard(grown, 3, filled_rows(grown, 3))
    again = grow_store(grown, new_entries(3, "third"))
    assert again.finished_shards() == [1, 3]
    assert again.pictures == PICTURES + NEW + 3
    complete(again)
    assert verify_store(again.path) == []
    assert np.array_equal(again.read_shard(1).soft_labels[0], soft_labels_of(SHARD_SIZE))


def test_a_full_last_shard_leaves_no_gap(tmp_path: Path):
    store = make_store(tmp_path / "store", pictures=2 * SHARD_SIZE)
    complete(store)
    before = inodes(store.path)
    grown = grow_store(store, new_entries())
    assert len(grown) == grown.pictures == 2 * SHARD_SIZE + NEW
    assert inodes(grown.path).items() >= before.items()
    assert verify_store(grown.path)[0].unfinished


def test_a_tap_that_was_deleted_stays_deleted(whole: LabelStore):
    shutil.rmtree(whole.path / "features" / "conv6")
    grown = grow_store(LabelStore.open(whole.path), new_entries())
    assert grown.features == {}
    complete(grown)
    assert verify_store(grown.path) == []


def test_a_picture_that_is_there_is_not_added_twice(whole: LabelStore):
    with pytest.raises(RequestError, match="listed twice"):
        grow_store(whole, [whole.manifest[0]])
    assert verify_store(whole.path) == []


@pytest.mark.parametrize("file", [GROUP, f"{SOFT_LABELS}/{GROUP}"])
def test_a_store_that_grows_while_it_is_opened_is_opened_as_it_is_then(
    whole: LabelStore, file: str, monkeypatch: pytest.MonkeyPatch
):
    read = FolderPlace.read

    def read_and_grow(self: FolderPlace, name: str) -> bytes:
        content = read(self, name)
        if name == file:
            monkeypatch.undo()
            grow_store(whole, new_entries())
        return content

    monkeypatch.setattr(FolderPlace, "read", read_and_grow)
    opened = LabelStore.open(whole.path)
    assert opened.pictures == PICTURES + NEW
    assert opened.pending_shards() == [3, 4]


def test_a_worker_of_the_generation_before_cant_publish(tmp_path: Path):
    store = make_store(tmp_path / "store")
    rows = filled_rows(store, 0)
    grown = grow_store(store, new_entries())
    with pytest.raises(WorkLeftError, match="has grown"):
        publish_shard(store, 0, rows)
    assert grown.finished_shards() == []
    complete(grown)
    assert verify_store(grown.path) == []


def test_what_is_being_published_is_there_before_the_store_grows(tmp_path: Path):
    store = make_store(tmp_path / "store")
    growing: list[threading.Thread] = []

    def grow_meanwhile(step: str) -> None:
        if step.endswith("in place") and not growing:
            growing.append(threading.Thread(target=grow_store, args=(LabelStore.open(store.path), new_entries())))
            growing[0].start()
            growing[0].join(0.5)
            assert growing[0].is_alive()

    assert publish_shard(store, 0, filled_rows(store, 0), on_step=grow_meanwhile)
    growing[0].join(60)
    grown = LabelStore.open(store.path)
    assert grown.finished_shards() == [0]
    complete(grown)
    assert verify_store(grown.path) == []


def test_two_that_let_it_grow_do_so_one_after_another(whole: LabelStore):
    other = LabelStore.open(whole.path)
    grow_store(whole, new_entries())
    with pytest.raises(StoreGrownError):
        grow_store(other, new_entries(2, "third"))
    assert LabelStore.open(whole.path).pictures == PICTURES + NEW


def test_who_had_it_open_is_told_to_open_it_again_and_not_to_delete_anything(whole: LabelStore):
    reader = LabelStore.open(whole.path)
    grow_store(whole, new_entries())
    with pytest.raises(StoreGrownError, match="has grown"):
        load_kept_slots(reader)
    with pytest.raises(StoreGrownError):
        verify_shard(reader, 0, values=True)


def test_a_missing_file_is_named_before_the_store_grows(whole: LabelStore):
    (whole.path / "soft_labels/c.1.0.0.0.0").unlink()
    with pytest.raises(StoreDamageError, match=r"shard 1, soft_labels/c.1.0.0.0.0: the file is missing"):
        grow_store(whole, new_entries())
    assert LabelStore.open(whole.path).pictures == PICTURES


def test_a_damaged_shard_with_gaps_is_found_and_made_again(whole: LabelStore):
    grown = grow_store(whole, new_entries())
    complete(grown)
    file = grown.path / "image/status/c.2"
    content = bytearray(file.read_bytes())
    content[3] ^= 1
    file.write_bytes(content)
    damage = verify_store(grown.path)
    assert {item.shard for item in damage} == {2}
    assert drop_damaged_records(grown.path, damage, values=True) == [2]
    complete(LabelStore.open(grown.path))
    assert verify_store(grown.path) == []
    assert LabelStore.open(grown.path).read_shard(2).status.tolist() == [LABELLED] + [GAP] * GAPS


@pytest.mark.parametrize("exchanging", [True, False])
def test_killed_at_any_moment_the_store_is_the_old_or_the_new(whole: LabelStore, tmp_path: Path, exchanging: bool):
    """Every call that changes the file system may be the last."""
    source = f"""
import os, signal, sys
from pathlib import Path
from data.store import grow
from data.store.reader import LabelStore
from tests.data.test_store_grow import new_entries
if not {exchanging}:
    grow.exchange = lambda one, other: False
events = ("os.rename", "os.link", "os.remove", "os.rmdir", "os.mkdir", "open", "ctypes.dlsym", "shutil.copyfile")
left = int(sys.argv[2])
store = LabelStore.open(Path(sys.argv[1]))
entries = new_entries()
def die(event, arguments):
    global left
    if event in events and (event != "open" or "w" in str(arguments[1]) or "x" in str(arguments[1])):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(die)
grow.grow_store(store, entries)
print(int(sys.argv[2]) - left)
"""

    def grow_until(moment: int) -> tuple[Path, "subprocess.CompletedProcess[str]"]:
        folder = tmp_path / f"{exchanging}-{moment}"
        subprocess.run(["cp", "-al", str(whole.path), str(folder)], check=True)
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", source, str(folder), str(moment)]
        return folder, subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)

    never = 10**6
    moments = int(grow_until(never)[1].stdout)
    outcomes = set()
    removed = 2 * len(files.files_below(whole.path))  # the last moments remove what was: the change lies before them
    for moment in {*range(1, moments, moments // 5), *range(moments - removed, moments, 7)}:
        folder, done = grow_until(moment)
        settle_growth(folder)
        clean_staging(folder)
        store = LabelStore.open(folder)
        assert store.pictures in (PICTURES, PICTURES + NEW)
        assert [item for item in verify_store(folder) if not item.unfinished] == []
        assert list(folder.parent.glob(f"{folder.name}.before*")) == []
        assert done.returncode == -signal.SIGKILL
        outcomes.add(store.pictures)
    assert outcomes == {PICTURES, PICTURES + NEW}


def test_where_folders_cant_be_exchanged_two_names_do(whole: LabelStore, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(grow, "exchange", lambda one, other: False)
    grown = grow_store(whole, new_entries())
    complete(grown)
    assert verify_store(grown.path) == []
    assert sorted(path.name for path in whole.path.parent.iterdir()) == ["store", "store.work"]


def test_a_disk_that_fails_leaves_the_store_as_it_was(whole: LabelStore, monkeypatch: pytest.MonkeyPatch):
    def fail(path: Path, data: bytes) -> None:
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr(grow, "write_synced", fail)
    with pytest.raises(WorkLeftError, match=r"could not grow.*as it was"):
        grow_store(whole, new_entries())
    assert verify_store(whole.path) == []
    assert len(LabelStore.open(whole.path)) == PICTURES
    assert list((work_path(whole.path) / "staging").iterdir()) == []


def test_folders_change_names_in_one_step_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    (one / "file").touch()
    if files.exchange(one, other):
        assert (other / "file").exists()
        assert not (one / "file").exists()
    with pytest.raises(FileNotFoundError):
        files.exchange(one, tmp_path / "nothing")

    class Without:
        def __init__(self, name: object, use_errno: bool) -> None: ...

    monkeypatch.setattr(files.ctypes, "CDLL", Without)
    assert not files.exchange(one, other)
