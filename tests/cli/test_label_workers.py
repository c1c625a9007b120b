"""Several `distill label` on one store: each shard made once, the store that of one process, whoever dies."""

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from data.store.folder_claims import FolderClaims
from data.store.layout import work_path
from data.store.verify import verify_store
from pipeline.worker_log import summaries
from tests.command_line import distill, start_process, succeed
from tests.labelling import (
    COUNT,
    SHARDS,
    arguments,
    claimed,
    contents,
    ledger,
    make_folder,
    slowly,
    start_slowly,
    until,
)
from tests.pictures import copy_pictures


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("workers"))


def test_processes_that_begin_at_once_make_one_store_together(folder: Path, tmp_path: Path):
    store = tmp_path / "store"
    words = slowly(folder, 0.1, together=2)
    processes = [start_process("label", "--store", store, *arguments(folder), "--json", by=words) for _ in range(3)]
    said = [process.communicate(timeout=240) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], said
    assert contents(store) == contents(folder / "store")
    assert verify_store(store) == []
    parts = [json.loads(out) for out, _ in said]
    assert sum(part["shards_now"] for part in parts) == SHARDS  # none twice
    assert sum(part["shards_now"] > 0 for part in parts) >= 2  # the third may come when all is taken
    assert all(len(part["rejected"]) == 1 for part in parts)
    assert sum(len(err.split("hashing: ")) > 1 for _, err in said) == 1
    logs = summaries(store)
    assert sorted(log.shards for log in logs) == sorted(part["shards_now"] for part in parts)
    assert sum(log.pictures for log in logs) == COUNT
    assert {log.end for log in logs} == {"the store is whole"}
    assert not (work_path(store) / "claims").exists()


def test_what_a_killed_process_held_is_made_by_the_one_that_waits(folder: Path, tmp_path: Path):
    store = tmp_path / "store"
    killed = start_slowly(folder, 0, store, stuck_after=4)
    until(lambda: ledger(store), "a shard is done", killed)
    waiting = start_process("label", "--store", store, *arguments(folder), "--json")
    # All is done but what the first one holds: a second shard and those whose pictures it decodes ahead.
    until(lambda: len(ledger(store)) + len(claimed(store)) >= SHARDS, "nothing is free", killed, waiting)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    out, err = waiting.communicate(timeout=240)
    assert waiting.returncode == 0, err
    assert contents(store) == contents(folder / "store")
    taken_over = [shard for log in summaries(store) for shard, _ in log.taken_over]
    assert taken_over
    assert json.loads(out)["shards_now"] >= len(taken_over)


def test_of_many_workers_one_stays_for_what_others_hold(folder: Path, tmp_path: Path):
    store = tmp_path / "store"
    succeed("label", "--store", store, *arguments(folder))
    (store / "ledger/00000003.json").unlink()
    with FolderClaims(store, "elsewhere") as claims:
        assert claims.take("00000003")
        staying = start_process("label", "--store", store, *arguments(folder), "--worker")
        until(lambda: "watch" in claims.names(), "a worker stays", staying)
        leaving = json.loads(succeed("label", "--store", store, *arguments(folder), "--worker", "--json").stdout)
        assert (leaving["shards_now"], leaving["left"]) == (0, 1)
        assert staying.poll() is None
        claims.release("00000003")
        out, err = staying.communicate(timeout=240)
    assert staying.returncode == 0, err
    assert "1 of 9 shards by this worker, 3 pictures" in out
    assert contents(store) == contents(folder / "store")


def test_a_worker_takes_the_list_of_pictures_as_it_is(folder: Path, tmp_path: Path):
    copy_pictures(tmp_path / "pictures", 6)
    store, given = tmp_path / "store", (tmp_path / "pictures", *arguments(folder)[1:])
    succeed("label", "--store", store, *given)
    (tmp_path / "pictures" / "new.jpg").write_bytes(b"not looked at")
    succeed("label", "--store", store, *given, "--worker")
    assert distill("label", "--store", store, *given).status == 2


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (("--batch-size", 4), "--batch-size 4"),
        (("--input-size", 96), "input.height 64 there, 96 asked"),
        (("--device", "cuda"), "--device cuda"),
    ],
)
def test_a_worker_that_cannot_honour_the_stores_settings_says_so(folder: Path, more: tuple[Any, ...], expected: str):
    outcome = distill("label", "--store", folder / "store", *arguments(folder), "--worker", *more)
    assert (outcome.status, outcome.stdout) == (2, "")
    assert expected in outcome.error


def test_a_worker_with_another_codec_pipeline_leaves_before_it_computes(folder: Path, monkeypatch: pytest.MonkeyPatch):
    from pipeline import label_plan

    monkeypatch.setattr(label_plan, "codec_pipeline", lambda: "fast.Pipeline")
    outcome = distill("label", "--store", folder / "store", *arguments(folder), "--worker")
    assert outcome.status == 2
    assert "not by fast.Pipeline" in outcome.error


def test_no_shard_is_taken_that_would_not_end_in_time(folder: Path, tmp_path: Path):
    """Thirteen batches of a second and more, and ten seconds: some shards, and an end before the time is up."""
    store = tmp_path / "store"
    process = start_slowly(folder, 1, store, "--time-limit", "10s")
    until(lambda: ledger(store), "a shard is done", process)
    began = time.monotonic()
    _, err = process.communicate(timeout=240)
    assert time.monotonic() - began < 60
    assert process.returncode == 1
    left = SHARDS - len(ledger(store))
    assert 0 < left < SHARDS
    assert err.splitlines()[-1] == (
        f"distill: the time limit is near: {left} of {SHARDS} shards are left. The same command goes on with them"
    )
    assert not claimed(store)
    succeed("label", "--store", store, *arguments(folder))
    assert contents(store) == contents(folder / "store")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_a_warned_worker_leaves_no_claim(folder: Path, tmp_path: Path, number: signal.Signals):
    store = tmp_path / "store"
    process = start_slowly(folder, 0.3, store, "--worker")
    until(lambda: ledger(store), "a shard is done", process)
    process.send_signal(number)
    _, err = process.communicate(timeout=240)
    assert process.returncode == 1
    assert "interrupted" in err.splitlines()[-1]
    assert not claimed(store)
    assert [log.end.partition(":")[0] for log in summaries(store)] == ["interrupted"]


def test_copies_are_labelled_once_and_stay_so_on_resume(folder: Path, tmp_path: Path):
    pictures = copy_pictures(tmp_path / "pictures", 7)
    for i in (1, 4):
        (tmp_path / "pictures" / f"z{i}.jpg").write_bytes(pictures[i].read_bytes())
    given = (tmp_path / "pictures", *arguments(folder)[1:])
    outcome = succeed("label", "--store", tmp_path / "store", *given, "--deduplicate")
    assert "2 of 9 pictures are copies" in outcome.stderr
    manifest = [json.loads(line) for line in (tmp_path / "store/manifest.jsonl").read_bytes().splitlines()]
    assert [entry["key"] for entry in manifest] == [f"pictures/{path.name}" for path in pictures]
    (tmp_path / "store/ledger/00000001.json").unlink()
    again = json.loads(succeed("label", "--store", tmp_path / "store", *given, "--deduplicate", "--json").stdout)
    assert again["shards_now"] == 1
    # a new content is no copy, and the list without --deduplicate is another
    assert distill("label", "--store", tmp_path / "store", *given).status == 2
    (tmp_path / "pictures" / "new.jpg").write_bytes(pictures[0].read_bytes() + b"\0")
    outcome = distill("label", "--store", tmp_path / "store", *given, "--deduplicate")
    assert outcome.status == 2
    assert "1 new (pictures/new.jpg)" in outcome.error
