"""`distill label --devices` and `--cluster` whose client or scheduler is killed: nothing stays behind that works on, no
claim keeps the next one waiting, and the same command completes the very same store."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest

from data.store.verify import verify_store
from pipeline.worker_log import summaries
from tests.command_line import ENVIRONMENT, ROOT, start_process
from tests.labelling import SHARDS, arguments, claimed, contents, ledger, make_folder, sleeping, start_slowly, until
from tests.processes import MARK, kill_marked, marked

BOUND_S = 60
"""In which the orphans must have ended: a batch is at most 0.6 s, and closing a Dask worker takes it some seconds."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("orphaned"))


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """In the environment of all processes that the test starts; they are killed at its end."""
    monkeypatch.setenv(MARK, str(tmp_path))
    yield str(tmp_path)
    kill_marked(str(tmp_path))


def at_work(store: Path) -> int:
    """How many workers published a shard and have not left."""
    return sum(bool(log.shards) and not log.end for log in summaries(store))


def gone(mark: str, *started: "subprocess.Popen[bytes]") -> None:
    """Wait until none is left; those that this test started itself are waited for."""
    end = time.monotonic() + BOUND_S
    for process in started:
        process.wait(BOUND_S)
    while left := marked(mark):
        assert time.monotonic() < end, f"still there: {left}"
        time.sleep(0.1)


@pytest.mark.parametrize("how", [("--devices", "2"), ("--cluster", "local:2")], ids=["--devices", "--cluster local"])
def test_workers_end_with_the_command_that_started_them(folder: Path, tmp_path: Path, mark: str, how: tuple[str, ...]):
    store = tmp_path / "store"
    process = start_slowly(folder, 0.6, store, *how, together=2)
    until(lambda: at_work(store) == 2, "both workers made a shard", process)
    assert len(marked(mark)) >= 3
    process.kill()
    process.communicate()
    gone(mark)
    before = len(ledger(store))
    assert 2 <= before < SHARDS  # they did not simply end because there was nothing more to do
    again = start_process("label", "--store", store, *arguments(folder), *how)
    _, err = again.communicate(timeout=240)
    assert again.returncode == 0, err
    assert contents(store) == contents(folder / "store")
    assert verify_store(store) == []
    gone(mark)


def scheduler(folder: Path, name: str) -> tuple["subprocess.Popen[bytes]", str]:
    """Dask's, on a port that is free, without workers; and its address."""
    with (folder / f"{name}.log").open("w") as log:
        process = start_dask(
            log, "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"
        )
    found = ""

    def address() -> str:
        nonlocal found
        words = (folder / f"{name}.log").read_text().split()
        found = next((word for word in words if word.startswith("tcp://127.0.0.1:") and word[-1].isdigit()), "")
        return found

    until(address, "the scheduler listens")
    return process, found


def start_dask(log: IO[str], *words: str) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, **ENVIRONMENT}
    return subprocess.Popen([sys.executable, "-m", *words], cwd=ROOT, env=environment, stdout=log, stderr=log)


def start_workers(folder: Path, address: str, *given: str) -> "list[subprocess.Popen[bytes]]":
    words = ("--nthreads", "1", "--no-dashboard", "--local-directory", str(folder / "dask"), *given)
    with (folder / "workers.log").open("a") as log:
        return [start_dask(log, "distributed.cli.dask_worker", address, *words) for _ in range(2)]


@dataclass
class Working:
    """A scheduler that was there before, two workers that have both made a shard, and the client."""

    scheduler: "subprocess.Popen[bytes]"
    address: str
    workers: "list[subprocess.Popen[bytes]]"
    client: "subprocess.Popen[str]"
    store: Path


@pytest.fixture
def working(folder: Path, tmp_path: Path, mark: str) -> Working:
    store = tmp_path / "store"
    process, address = scheduler(tmp_path, "first")
    workers = start_workers(tmp_path, address, "--preload", str(sleeping(tmp_path, 0.6, together=2)))
    client = start_process("label", "--store", store, *arguments(folder), "--cluster", address)
    until(lambda: at_work(store) == 2, "both workers made a shard", client, *workers)
    return Working(process, address, workers, client, store)


def test_workers_of_a_scheduler_that_lives_let_go_when_their_client_is_killed(working: Working, mark: str):
    working.client.kill()
    working.client.wait()
    until(lambda: not claimed(working.store), "nothing is claimed", working.scheduler, *working.workers)
    assert 2 <= len(ledger(working.store)) < SHARDS
    working.scheduler.send_signal(signal.SIGTERM)
    gone(mark, working.scheduler, *working.workers)


def test_a_killed_scheduler_takes_its_workers_with_it_and_the_client_says_so(
    folder: Path, tmp_path: Path, mark: str, working: Working
):
    store = working.store
    working.scheduler.kill()
    working.scheduler.wait()
    began = time.monotonic()
    out, err = working.client.communicate(timeout=120)
    assert time.monotonic() - began < BOUND_S
    assert (working.client.returncode, out) == (1, ""), err
    left = SHARDS - len(ledger(store))
    assert err.splitlines()[-1].startswith(f"distill: Dask's scheduler at {working.address} is gone"), err
    assert err.splitlines()[-1].endswith("shards are left. The same command goes on with them")
    assert "Traceback" not in err, err
    gone(mark, *working.workers)
    assert 0 < SHARDS - len(ledger(store)) <= left

    second, address = scheduler(tmp_path, "second")
    workers = start_workers(tmp_path, address)
    again = start_process("label", "--store", store, *arguments(folder), "--cluster", address)
    _, err = again.communicate(timeout=240)
    assert again.returncode == 0, err
    assert contents(store) == contents(folder / "store")
    assert verify_store(store) == []
    second.send_signal(signal.SIGTERM)
    gone(mark, second, *workers)
