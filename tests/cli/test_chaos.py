"""Workers killed, requeued, without disk or node, in front of a reader: the store is that of one quiet process."""

import contextlib
import os
import random
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.store.reader import LabelStore
from data.store.rows import ShardRows
from data.store.verify import verify_store
from pipeline import submit_command
from pipeline.worker_log import summaries
from tests.command_line import succeed
from tests.labelling import contents, ledger, slowly
from tests.pictures import bccd, damage, write_teacher
from tests.slurm import REQUIRED, Slurm

SETTINGS = ("--device", "cpu", "--precision", "float32", "--batch-size", 4, "--shard-size", 8, "--threads", 1)
BROKEN = 12
DISK_MB = 64


def crops(folder: Path, count: int) -> None:
    """Small pieces of the photographs, the last BROKEN of them damaged, in a folder of their own."""
    sources = sorted((bccd() / "JPEGImages").glob("*.jpg"))[:30]
    draw = random.Random(1)
    for name in ("whole", "broken"):
        (folder / name).mkdir(parents=True)
    for number in range(count):
        broken = number >= count - BROKEN
        with Image.open(sources[number % len(sources)]) as picture:
            left, top = draw.randrange(300), draw.randrange(200)
            file = folder / ("broken" if broken else "whole") / f"{number:04d}.jpg"
            picture.crop((left, top, left + 320, top + 240)).resize((80, 60)).save(file)
        if broken:
            damage(file)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few megabytes, to be filled."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        reason = f"a small file system can't be mounted here: {mounted.stderr.decode().strip()}"
        if os.environ.get(REQUIRED):
            pytest.fail(f"{REQUIRED} is set, and {reason}")
        pytest.skip(reason)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


class Reader(threading.Thread):
    """Reads every finished shard again and again; what it saw that was not so in the quiet store is in `wrong`."""

    def __init__(self, store: Path, quiet: LabelStore) -> None:
        super().__init__(daemon=True)
        self.store, self.quiet = store, quiet
        self.expected = {shard: quiet.read_shard(shard) for shard in range(quiet.shard_count)}
        self.wrong: list[str] = []
        self.reads = 0
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.2):
            if not (self.store / "zarr.json").exists():
                continue
            try:
                opened = LabelStore.open(self.store)
                for shard in opened.finished_shards():
                    if not same(opened.read_shard(shard), self.expected[shard]):
                        self.wrong.append(f"shard {shard} reads otherwise")
                    self.reads += 1
            except Exception as error:
                self.wrong.append(repr(error))


def same(one: ShardRows, other: ShardRows) -> bool:
    return (
        one.keys == other.keys
        and one.rejected == other.rejected
        and np.array_equal(one.status, other.status)
        and np.array_equal(one.sizes, other.sizes)
        and np.array_equal(one.soft_labels.view(np.uint16), other.soft_labels.view(np.uint16))
    )


def at_work(store: Path) -> list[int]:
    """Processes of the job's workers that published a shard and live."""
    found = (re.search(r"-(\d+)-job-", log.worker) for log in summaries(store) if log.shards and not log.end)
    return [int(match[1]) for match in found if match and Path(f"/proc/{match[1]}").exists()]


@contextlib.contextmanager
def full(disk: Path) -> Iterator[None]:
    """No byte is free within the context."""
    ballast = disk / "ballast"
    with ballast.open("wb") as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(65536))
            file.flush()
    yield
    ballast.unlink()


@pytest.mark.parametrize(
    ("pictures", "kills", "more", "seconds"),
    [
        pytest.param(100, 1, (), 0.6, id="short"),
        pytest.param(
            300, 12, ("power", "controller"), 0.6, id="long", marks=[pytest.mark.slow, pytest.mark.timeout(1800)]
        ),
    ],
)
def test_the_store_is_that_of_a_quiet_process(
    slurm: Slurm,
    disk: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pictures: int,
    kills: int,
    more: tuple[str, ...],
    seconds: float,
):
    crops(tmp_path / "pictures", pictures)
    given = (tmp_path / "pictures", "--teacher", write_teacher(tmp_path / "teacher.safetensors", side=64), *SETTINGS)
    quiet = tmp_path / "quiet"
    succeed("label", "--store", quiet, *given)
    store = disk / "store"
    monkeypatch.setattr(submit_command, "distill_words", lambda: slowly(tmp_path, seconds))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)
    reader = Reader(store, LabelStore.open(quiet))
    reader.start()
    shards = reader.quiet.shard_count

    def submit() -> None:
        succeed("submit", "label", "--store", store, *given, "--workers", 3, "--walltime", "30:00")

    def somebody_at_work() -> bool:
        if not slurm.jobs() and len(ledger(store)) < shards:
            submit()
        return bool(at_work(store)) or len(ledger(store)) == shards

    draw, killed = random.Random(pictures), 0
    faults = ["kill", "disk", "requeue", "node", *more, *["kill"] * kills]
    done: set[str] = set()
    for fault in faults:
        slurm.wait(somebody_at_work, "a worker made a shard")
        if len(ledger(store)) == shards:
            break
        running = [job for job, state, _ in slurm.jobs() if state == "RUNNING"]
        done.add(fault)
        if fault == "requeue" and running:
            slurm.run("scontrol", "requeue", draw.choice(running))
        elif fault == "node":
            slurm.lose_node("node1")
        elif fault == "power":
            with slurm.dead_node("node2"):
                slurm.wait(lambda: slurm.node("node2").startswith("down"), "Slurm has noticed")
        elif fault == "controller":
            with slurm.dead_controller():
                time.sleep(4 * seconds)  # work goes on, or ends
        elif fault == "disk":
            with full(disk):
                before = len(ledger(store))
                time.sleep(4 * seconds)  # two shards' time; what is in the page cache of a tmpfs is on the disk
                assert len(ledger(store)) <= before + 2
        else:
            for process in draw.sample(at_work(store), min(1, len(at_work(store)))):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
                    killed += 1
        slurm.hurry()
        time.sleep(draw.uniform(0, 2))
    slurm.wait(lambda: not slurm.jobs(), "the jobs have ended", 900)
    if len(ledger(store)) < shards:  # each of them failed a few times without getting anywhere
        submit()
        slurm.wait(lambda: not slurm.jobs(), "the jobs have ended", 900)
    reader.ended.set()
    reader.join(60)

    assert not reader.wrong
    assert reader.reads >= shards
    assert killed
    assert done == set(faults)
    assert contents(store) == contents(quiet)
    assert verify_store(store) == []
    opened = LabelStore.open(store)
    rejected = [key for shard in range(shards) for key, _ in opened.record(shard).rejected]
    assert len(rejected) == len(set(rejected)) == BROKEN
