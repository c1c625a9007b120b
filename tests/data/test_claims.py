"""FolderClaims: one holder at a time while it lives, anybody's once it is dead, and no harm from who wakes up late."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from data.store import folder_claims as claims_module
from data.store.folder_claims import FolderClaims
from data.store.layout import work_path

ROOT = Path(__file__).parents[2]
NAME = "00000007"

HOLDER = """
import sys, time
from pathlib import Path
from data.store.folder_claims import FolderClaims
claims = FolderClaims(Path(sys.argv[1]), "holder")
with claims:
    assert claims.take(sys.argv[2])
    print("taken", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def claim_file(store: Path) -> Path:
    return work_path(store) / "claims" / f"{NAME}.claim"


def make_older(store: Path, seconds: float) -> None:
    now = claim_file(store).stat().st_mtime
    os.utime(claim_file(store), (now - seconds, now - seconds))


def of_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on this process is on a machine where locks say nothing about earlier claims."""
    monkeypatch.setattr(claims_module, "_machine", lambda: "another")


def test_a_claim_has_one_holder_until_it_is_released(store: Path):
    with FolderClaims(store, "one") as one, FolderClaims(store, "other") as other:
        assert one.take(NAME)
        assert not other.take(NAME)
        assert other.names() == one.names() == {NAME}
        one.release(NAME)
        assert other.take(NAME)
        assert not one.take(NAME)


def test_the_end_of_a_worker_releases_its_claims_and_leaves_nothing(store: Path):
    with FolderClaims(store, "one") as one:
        assert one.take(NAME)
        assert one.take("00000008")
    with FolderClaims(store, "other") as other:
        assert other.names() == set()
        assert other.take(NAME)
    assert not work_path(store).exists()


def test_of_many_who_ask_at_once_one_gets_it(store: Path):
    start, got = threading.Barrier(8), []

    def ask(worker: str) -> None:
        with FolderClaims(store, worker) as claims:
            start.wait(30)
            if claims.take(NAME):
                got.append(worker)
            start.wait(30)

    threads = [threading.Thread(target=ask, args=(str(i),)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(got) == 1


def test_a_killed_worker_on_this_machine_is_known_to_be_dead_at_once(store: Path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(store), NAME], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "taken\n"
        with FolderClaims(store, "other") as other:
            assert not other.take(NAME)
            holder.send_signal(signal.SIGKILL)
            holder.wait(60)
            assert other.take(NAME)
            assert other.taken_over == [(NAME, "holder")]


def test_a_claim_of_another_machine_is_taken_over_when_it_is_as_old_as_it_says(
    store: Path, monkeypatch: pytest.MonkeyPatch
):
    with FolderClaims(store, "one", expiry_s=100) as one, FolderClaims(store, "other", expiry_s=5) as other:
        assert one.take(NAME)
        of_another_machine(monkeypatch)
        make_older(store, 90)
        assert not other.take(NAME)
        make_older(store, 110)
        assert other.take(NAME)
        assert other.taken_over == [(NAME, "one")]


def test_age_is_told_by_the_clock_of_the_file_system(store: Path, monkeypatch: pytest.MonkeyPatch):
    """A server whose clock is an hour behind dates new files an hour back; nothing has expired for that."""
    with FolderClaims(store, "one", expiry_s=100) as one, FolderClaims(store, "other") as other:
        assert one.take(NAME)
        of_another_machine(monkeypatch)
        make_older(store, 3600)
        real = os.utime
        monkeypatch.setattr(os, "utime", lambda file: real(file, (os.fstat(file).st_mtime - 3600,) * 2))
        assert not other.take(NAME)


def test_a_living_worker_keeps_its_claim_however_long_it_takes(store: Path, monkeypatch: pytest.MonkeyPatch):
    beat = threading.Event()
    real = os.utime

    def utime(*arguments, **named):
        real(*arguments, **named)
        beat.set()

    monkeypatch.setattr(os, "utime", utime)
    with FolderClaims(store, "one", expiry_s=0.3) as one:
        assert one.take(NAME)
        make_older(store, 1000)
        old = claim_file(store).stat().st_mtime
        for _ in range(2):  # the first may have been waiting while the file was made older
            beat.clear()
            assert beat.wait(60)
        assert claim_file(store).stat().st_mtime > old + 900


def test_a_stalled_worker_that_wakes_up_leaves_the_new_holder_alone(store: Path, monkeypatch: pytest.MonkeyPatch):
    with FolderClaims(store, "other") as other:
        with FolderClaims(store, "stalled", expiry_s=100) as stalled:
            assert stalled.take(NAME)
            make_older(store, 200)
            with monkeypatch.context() as patch:
                of_another_machine(patch)
                assert other.take(NAME)
            taken = claim_file(store).stat()
            stalled.release(NAME)
            assert os.path.samestat(claim_file(store).stat(), taken)
        assert claim_file(store).stat().st_mtime == taken.st_mtime
        with FolderClaims(store, "third") as third:
            assert not third.take(NAME)


def test_who_finds_a_claim_dead_too_late_puts_the_younger_one_back(store: Path, monkeypatch: pytest.MonkeyPatch):
    with (
        FolderClaims(store, "slow") as slow,
        FolderClaims(store, "quick") as quick,
        FolderClaims(store, "dead") as dead,
    ):
        assert dead.take(NAME)
        make_older(store, 1000)
        of_another_machine(monkeypatch)
        real, overtaken = FolderClaims._dead, []

        def overtake(claims: FolderClaims, *arguments):
            found = real(claims, *arguments)
            if claims is slow and found:
                overtaken.append(quick.take(NAME))
            return found

        monkeypatch.setattr(FolderClaims, "_dead", overtake)
        assert not slow.take(NAME)
        assert overtaken == [True]
        assert json.loads(claim_file(store).read_bytes())["worker"] == "quick"
        assert [path.name for path in claim_file(store).parent.iterdir()] == [claim_file(store).name]


@pytest.mark.parametrize("content", [b"", b"[]", b'{"machine": '])
def test_a_claim_without_its_content_lives_by_its_age(store: Path, content: bytes):
    claim_file(store).parent.mkdir(parents=True)
    claim_file(store).write_bytes(content)
    with FolderClaims(store, "one", expiry_s=100) as one:
        assert not one.take(NAME)
        make_older(store, 200)
        assert one.take(NAME)


def test_the_folder_may_be_deleted_at_any_time(store: Path):
    with FolderClaims(store, "one") as one, FolderClaims(store, "other") as other:
        assert one.take(NAME)
        claim_file(store).unlink()
        claim_file(store).parent.rmdir()
        assert other.names() == set()
        assert other.take(NAME)
        one.release(NAME)
        assert claim_file(store).exists()
