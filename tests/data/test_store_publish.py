"""The writing protocol: kills, races and full disks leave whole shards or none, and always the same bytes."""

import contextlib
import errno
import fcntl
import json
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
from data.store import folder_place, publish
from data.store.create import create_store
from data.store.damage import StoreDamageError
from data.store.files import files_below
from data.store.layout import LABELLED, REJECTED, work_path
from data.store.publish import publish_shard
from data.store.reader import LabelStore
from data.store.verify import verify_store
from data.store.work import clean_staging, staging_folder
from tests.reference_store import (
    EMPTY_PICTURE,
    FEATURES,
    PICTURES,
    REJECTED_PICTURE,
    features_of,
    filled_rows,
    make_store,
    soft_labels_of,
    tiny_attributes,
    tiny_manifest,
)

ROOT = Path(__file__).parents[2]

# A process that has imported everything and started no thread forks one child per step, which dies at it.
KILLED_AT_EVERY_STEP = """
import os, signal, sys
from pathlib import Path
from data.store.publish import publish_shard
from tests.reference_store import filled_rows, make_store

os.fsync = lambda descriptor: None  # a kill loses nothing that the kernel has
step = 0
while True:
    child = os.fork()
    if child == 0:
        store = make_store(Path(sys.argv[1], str(step), "store"))
        publish_shard(store, 0, filled_rows(store, 0))
        seen = []
        def die(what):
            seen.append(what)
            if len(seen) == step + 1:
                os.kill(os.getpid(), signal.SIGKILL)
        publish_shard(store, 1, filled_rows(store, 1), on_step=die)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if status == 0:
        break
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, status
    step += 1
print(step)
"""

KILLED_WHILE_CREATING = """
import os, signal, sys
from pathlib import Path
from data.store import create, folder_place
from tests.reference_store import make_store

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
setattr(folder_place if sys.argv[2] == "sync_tree" else create, sys.argv[2], die)
make_store(Path(sys.argv[1]))
"""


def run_python(source: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", source, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def contents(store: Path) -> dict[str, bytes]:
    return {file: (store / file).read_bytes() for file in files_below(store)}


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch):
    """Syncing matters to power cuts alone, and is most of the time here; one test below looks at it."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def publish_all(store: LabelStore) -> None:
    for shard in store.pending_shards():
        publish_shard(store, shard, filled_rows(store, shard))


@pytest.fixture
def whole(tmp_path: Path) -> LabelStore:
    store = make_store(tmp_path / "whole")
    publish_all(store)
    return store


def test_what_is_written_is_what_is_read(whole: LabelStore):
    assert whole.pending_shards() == []
    assert verify_store(whole.path) == []
    manifest = tiny_manifest()
    for shard in range(whole.shard_count):
        first, count = whole.shard_range(shard)
        rows = whole.read_shard(shard)
        assert rows.keys == manifest.keys[first : first + count]
        for row, picture in enumerate(range(first, first + count)):
            if picture == REJECTED_PICTURE:
                assert rows.status[row] == REJECTED
                assert rows.rejected == [(manifest.keys[picture], "truncated JPEG")]
                assert rows.sizes[row].tolist() == [0, 0]
                assert np.isnan(rows.soft_labels[row]).all()
                assert np.isnan(rows.features["conv6"][row]).all()
            else:
                assert rows.status[row] == LABELLED
                assert rows.sizes[row].tolist() == [40 + row, 60 + row]
                np.testing.assert_array_equal(rows.soft_labels[row], soft_labels_of(picture))
                np.testing.assert_array_equal(rows.features["conv6"][row], features_of(picture))
            assert rows.digests[row].tobytes().hex() == manifest[picture].digest


def test_plain_zarr_reads_the_store(whole: LabelStore):
    group = zarr.open_group(whole.path, mode="r")
    labels = group["soft_labels"]
    assert (labels.shape, labels.dtype, labels.shards) == ((PICTURES, 2, 8, 2, 3), np.float16, (3, 2, 8, 2, 3))
    assert np.isnan(labels.fill_value)
    assert not labels[EMPTY_PICTURE].any()
    assert np.isnan(labels[REJECTED_PICTURE]).all()
    assert group["features/conv6"].shape == (PICTURES, *FEATURES["conv6"])
    assert group["image/key"][:].tolist() == list(tiny_manifest().keys)
    assert (group["image/size"].dtype, group["image/digest"].dtype) == (np.int32, np.uint8)
    assert group["image/status"][:].tolist() == [1, 1, 1, 1, 2, 1, 1]
    assert group.attrs["distill"]["teacher"]["classes"][2] == "Blutplättchen"


def test_every_array_is_one_flat_file_per_shard_with_checked_inner_chunks(whole: LabelStore):
    for name in whole.array_names:
        files = {path.name for path in (whole.path / name).iterdir()} - {"zarr.json"}
        tail = ".0" * (whole.dimensions(name) - 1)
        assert files == {f"c.{shard}{tail}" for shard in range(3)}
        metadata = json.loads((whole.path / name / "zarr.json").read_text())
        sharding = metadata["codecs"][0]["configuration"]
        names = [codec["name"] for codec in sharding["codecs"]]
        assert names == ["vlen-utf8" if name == "image/key" else "bytes", "zstd", "crc32c"]
        assert [codec["name"] for codec in sharding["index_codecs"]] == ["bytes", "crc32c"]


def test_every_inner_chunk_is_written_even_where_it_equals_the_fill_value(tmp_path: Path):
    create_store(tmp_path / "store", tiny_attributes(), tiny_manifest(), {}, label_chunk=1)
    store = LabelStore.open(tmp_path / "store")
    publish_all(store)
    data = (store.path / "soft_labels" / "c.1.0.0.0.0").read_bytes()
    index = np.frombuffer(data[-3 * 16 - 4 : -4], "<u8").reshape(3, 2)
    assert (index[:, 1] < len(data)).all()  # 2**64 - 1 marks a chunk that is not there


def test_stores_made_in_another_order_are_equal_file_by_file(whole: LabelStore, tmp_path: Path):
    other = make_store(tmp_path / "other")
    for shard in (2, 0, 1):
        publish_shard(other, shard, filled_rows(other, shard))
    assert contents(other.path) == contents(whole.path)


def test_a_finished_shard_is_left_alone(whole: LabelStore):
    before = {file: (whole.path / file).stat().st_ino for file in files_below(whole.path)}
    assert publish_shard(whole, 1, filled_rows(whole, 1, scale=2)) is False
    assert {file: (whole.path / file).stat().st_ino for file in files_below(whole.path)} == before
    assert list((work_path(whole.path) / "staging").iterdir()) == []


def test_killed_at_every_step_the_same_work_completes_the_store(whole: LabelStore, tmp_path: Path):
    result = run_python(KILLED_AT_EVERY_STEP, str(tmp_path))
    assert result.returncode == 0, result.stderr
    steps = int(result.stdout)
    assert steps == 4 + 2 * len(whole.array_names) + 1  # folder, record, two syncs, publishing; each array twice
    expected = contents(whole.path)
    finished = set()
    for step in range(steps):
        store = LabelStore.open(tmp_path / str(step) / "store")
        finished.add(len(store.finished_shards()))
        for shard in store.finished_shards():
            store.read_shard(shard)
        left = {file: (store.path / file).stat().st_ino for file in files_below(store.path)}
        assert clean_staging(store.path) == 1
        assert list((work_path(store.path) / "staging").iterdir()) == []
        publish_all(store)
        assert contents(store.path) == expected
        assert {file: (store.path / file).stat().st_ino for file in left} == left
        assert verify_store(store.path) == []
    assert finished == {1, 2}


@pytest.mark.parametrize("moment", ["_write_arrays", "group_bytes", "sync_tree"])
def test_killed_while_it_is_made_there_is_no_store(tmp_path: Path, moment: str):
    path = tmp_path / "store"
    assert run_python(KILLED_WHILE_CREATING, str(path), moment).returncode == -signal.SIGKILL
    assert not path.exists()
    assert clean_staging(path) == 1
    assert make_store(path).pending_shards() == [0, 1, 2]


def test_nothing_is_overwritten_by_a_new_store(tmp_path: Path, whole: LabelStore):
    (tmp_path / "empty").mkdir()
    make_store(tmp_path / "empty")
    before = contents(whole.path)
    with pytest.raises(RequestError, match="not an empty folder"):
        make_store(whole.path)
    assert contents(whole.path) == before
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RequestError, match="not an empty folder"):
        make_store(tmp_path / "file")


def test_the_loser_of_a_race_to_make_the_store_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "store"

    def rival(root: Path) -> None:
        monkeypatch.undo()
        make_store(path)

    monkeypatch.setattr(folder_place, "sync_tree", rival)
    with pytest.raises(RequestError, match="by another process meanwhile"):
        make_store(path)
    assert LabelStore.open(path).pending_shards() == [0, 1, 2]


def steps_of(tmp_path: Path) -> list[str]:
    store, steps = make_store(tmp_path / "steps", pictures=3), []
    publish_shard(store, 0, filled_rows(store, 0), on_step=steps.append)
    return steps


def test_everything_is_on_the_disk_before_the_next_step_needs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store, synced, early = make_store(tmp_path / "store"), set(), []
    work = work_path(store.path) / "staging"
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.add(Path(f"/proc/self/fd/{descriptor}").readlink()))

    def check(step: str) -> None:
        file, _, what = step.rpartition(" ")
        if what == "staged":
            staged = {path.relative_to(work).as_posix().partition("/")[2] for path in synced if work in path.parents}
            early.extend([step] if {"record": "record.json"}.get(file, file) not in staged else [])
        elif step == "folders synced":
            early.extend(name for name in store.array_names if store.path / name not in synced)
        elif step == "record published":
            assert store.path / "ledger" not in synced
        elif step == "ledger synced":
            assert store.path / "ledger" in synced

    publish_shard(store, 1, filled_rows(store, 1), on_step=check)
    assert early == []


def test_a_reader_never_sees_a_half_written_shard(tmp_path: Path):
    path = tmp_path / "store"
    store = make_store(path)
    publish_shard(store, 0, filled_rows(store, 0))
    seen = []

    def look(step: str) -> None:
        reader = LabelStore.open(path)
        seen.append((step, reader.finished_shards()))
        for shard in reader.finished_shards():
            np.testing.assert_array_equal(reader.read_shard(shard).soft_labels, filled_rows(store, shard).soft_labels)
        if 1 not in reader.finished_shards():
            with pytest.raises(StoreDamageError, match=r"shard 1.*unfinished"):
                reader.read_shard(1)

    publish_shard(store, 1, filled_rows(store, 1), on_step=look)
    shown = [step for step, finished in seen if 1 in finished]
    assert shown == ["record published", "ledger synced"]


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_two_workers_on_one_shard_do_no_harm(tmp_path: Path, scale: float):
    for number in range(len(steps_of(tmp_path))):
        store = make_store(tmp_path / str(number), pictures=3)
        rival = LabelStore.open(store.path)
        results, threads, seen = [], [], []

        def compete(rival=rival, results=results) -> None:
            results.append(publish_shard(rival, 0, filled_rows(rival, 0, scale)))

        def start(_: str, number=number, threads=threads, seen=seen, compete=compete) -> None:
            seen.append(_)
            if len(seen) == number + 1:
                threads.append(threading.Thread(target=compete))
                threads[0].start()
                threads[0].join(0.02)

        results.append(publish_shard(store, 0, filled_rows(store, 0), on_step=start))
        threads[0].join()
        assert sorted(results) == [False, True]
        assert verify_store(store.path) == []


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_two_workers_agree_even_where_the_file_system_has_no_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scale: float
):
    steps = steps_of(tmp_path)
    monkeypatch.setattr(fcntl, "flock", no_locks)
    for number in range(len(steps)):
        store = make_store(tmp_path / str(number), pictures=3)
        seen = []

        def interrupt(step: str, store=store, seen=seen, number=number) -> None:
            seen.append(step)
            if len(seen) == number + 1:
                publish_shard(store, 0, filled_rows(store, 0, scale))

        publish_shard(store, 0, filled_rows(store, 0), on_step=interrupt)
        LabelStore.open(store.path).read_shard(0)
        assert verify_store(store.path) == []


def no_locks(descriptor: int, operation: int) -> None:
    raise OSError(errno.ENOLCK, "No locks available")


def test_the_first_record_wins_though_it_comes_at_the_last_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store = make_store(tmp_path / "store", pictures=3)
    record = store.path / "ledger" / "00000000.json"
    link = os.link
    inodes = []

    def rival_first(source: Path, target: Path) -> None:
        if target == record and not inodes:
            inodes.append(0)
            assert publish_shard(store, 0, filled_rows(store, 0)) is True
            inodes[0] = record.stat().st_ino
        link(source, target)

    monkeypatch.setattr(fcntl, "flock", no_locks)
    monkeypatch.setattr(os, "link", rival_first)
    assert publish_shard(store, 0, filled_rows(store, 0)) is False
    assert record.stat().st_ino == inodes[0]
    assert verify_store(store.path) == []


def test_files_that_a_late_rival_put_over_a_published_shard_are_put_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    store = make_store(tmp_path / "store", pictures=3)
    steps = []

    def overwrite(step: str) -> None:
        steps.append(step)
        if steps.count("record published") == 1 == steps.count(step):
            (tmp_path / "other").write_bytes(b"what a worker computed that looked before there was a record")
            (tmp_path / "other").replace(store.path / "soft_labels" / "c.0.0.0.0.0")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    publish_shard(store, 0, filled_rows(store, 0), on_step=overwrite)
    assert steps[-2:] == ["soft_labels/c.0.0.0.0.0 in place", "folders synced"]
    assert verify_store(store.path) == []


def test_a_record_that_describes_nothing_in_place_is_replaced(tmp_path: Path):
    store = make_store(tmp_path / "store")

    def spoil(step: str) -> None:
        if step == "folders synced":
            (store.path / "ledger" / "00000001.json").write_text("{}")

    assert publish_shard(store, 1, filled_rows(store, 1), on_step=spoil) is True
    publish_all(store)
    assert verify_store(store.path) == []


def test_a_disk_that_does_not_keep_what_it_is_given_is_reported(tmp_path: Path):
    store = make_store(tmp_path / "store")

    def spoil(step: str) -> None:
        if step == "folders synced":
            (store.path / "image" / "size" / "c.1.0").unlink()
            (store.path / "image" / "size" / "c.1.0").write_bytes(b"other")

    with pytest.raises(WorkLeftError, match=r"00000001.*Verify the store"):
        publish_shard(store, 1, filled_rows(store, 1), on_step=spoil)
    assert store.pending_shards() == [0, 1, 2]


def test_staging_of_a_living_worker_stays_and_of_a_dead_one_goes(tmp_path: Path):
    path = tmp_path / "store"
    with staging_folder(path) as living:
        (living / "file").write_text("")
        dead = living.parent / "dead"
        dead.mkdir()
        dead.with_suffix(".lock").touch()
        assert clean_staging(path) == 1
        assert not dead.exists()
        assert (living / "file").exists()
    assert list(living.parent.iterdir()) == []
    assert clean_staging(path) == 0


def test_a_staging_folder_whose_lock_was_cleaned_up_in_between_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    cleaned = []
    flock = fcntl.flock

    def clean_first(descriptor: int, operation: int) -> None:
        if not cleaned:
            cleaned.append(Path(f"/proc/self/fd/{descriptor}").readlink())
            cleaned[0].unlink()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", clean_first)
    with staging_folder(tmp_path / "store") as folder:
        assert folder != cleaned[0].with_suffix("")
        assert clean_staging(tmp_path / "store") == 0
        assert folder.is_dir()


def test_work_deleted_under_a_worker_fails_its_shard_only(tmp_path: Path):
    store = make_store(tmp_path / "store")

    def delete(step: str) -> None:
        if step == "record staged":
            shutil.rmtree(work_path(store.path))

    with pytest.raises(WorkLeftError, match=r"Shard 1 of .* could not be written.*tries it again"):
        publish_shard(store, 1, filled_rows(store, 1), on_step=delete)
    publish_all(store)
    assert verify_store(store.path) == []


def test_a_full_disk_names_the_bytes_and_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store = make_store(tmp_path / "store")
    before = contents(store.path)

    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(publish, "write_synced", full)
    with pytest.raises(WorkLeftError, match=r"disk is full: shard 1 .* needs up to \d+ bytes, \d+ are free"):
        publish_shard(store, 1, filled_rows(store, 1))
    monkeypatch.undo()
    assert contents(store.path) == before
    assert list((work_path(store.path) / "staging").iterdir()) == []
    publish_all(store)
    assert verify_store(store.path) == []


@pytest.fixture
def tiny_disk(tmp_path: Path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_that_is_really_full(tiny_disk: Path, whole: LabelStore):
    store = make_store(tiny_disk / "store")
    publish_shard(store, 0, filled_rows(store, 0))
    before = contents(store.path)
    ballast = tiny_disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    with ballast.open("r+b") as file:
        file.truncate(ballast.stat().st_size - 5 * 4096)
    with pytest.raises(WorkLeftError, match=r"disk is full: shard 1 .* needs up to \d+ bytes, 20480 are free"):
        publish_shard(store, 1, filled_rows(store, 1))
    assert contents(store.path) == before
    ballast.unlink()
    publish_all(store)
    assert contents(store.path) == contents(whole.path)


def test_rows_that_must_not_reach_a_store_are_refused(tmp_path: Path):
    store = make_store(tmp_path / "store")
    with pytest.raises(ValueError, match="neither labelled nor rejected"):
        publish_shard(store, 1, store.pending_rows(1))
    with pytest.raises(ValueError, match="keys are not those"):
        publish_shard(store, 1, filled_rows(store, 0))
    unlisted = filled_rows(store, 1)
    unlisted.rejected.clear()
    with pytest.raises(ValueError, match="rejected pictures"):
        publish_shard(store, 1, unlisted)
    overflow = filled_rows(store, 1)
    overflow.features["conv6"][2, 0, 0, 0] = np.inf
    with pytest.raises(WorkLeftError, match=r"conv6 for blood/Zelle 05\.jpg"):
        publish_shard(store, 1, overflow)
    zeros = filled_rows(store, 1)
    zeros.soft_labels[1] = 0
    with pytest.raises(ValueError, match="not NaN"):
        publish_shard(store, 1, zeros)
    changed = filled_rows(store, 1)
    changed.digests[0, 0] ^= 1
    with pytest.raises(RequestError, match=r"Zelle 03\.jpg changed"):
        publish_shard(store, 1, changed)
    assert store.pending_shards() == [0, 1, 2]


def test_another_codec_pipeline_is_refused(tmp_path: Path):
    store = make_store(tmp_path / "store")
    with zarr.config.set({"codec_pipeline.path": "elsewhere.Pipeline"}), pytest.raises(RequestError, match="elsewhere"):
        publish_shard(store, 0, filled_rows(store, 0))


def test_a_store_named_through_a_link_works_beside_the_real_folder(tmp_path: Path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    store = make_store(tmp_path / "link" / "store")
    assert work_path(store.path) == tmp_path / "disk" / "store.work"
    publish_all(store)
    assert verify_store(store.path) == []
