"""A thousand workers on one ledger, in simulated time and with real files: do they find shards, and how fast?"""

import heapq
import random
import resource
import time
from collections.abc import Iterator
from pathlib import Path

from data.store.folder_claims import FolderClaims
from data.store.layout import LEDGER, array_file, ledger_file, shard_count, shard_range
from data.store.ledger import LedgerRecord, finished_shards, record_bytes
from parts.turns import Finding, spread
from pipeline.progress import SilentProgress
from pipeline.shard_queue import ShardQueue

SHARD, SHARD_S, START_S = 1024, 10.0, 60.0
ARRAYS = (("soft_labels", 5), ("image/key", 1), ("image/size", 2), ("image/digest", 2), ("image/status", 1))


class LedgerOnly:
    """As much of a LabelStore as a ShardQueue asks for."""

    def __init__(self, path: Path, pictures: int) -> None:
        self.path, self.pictures = path, pictures
        self.shard_count = shard_count(pictures, SHARD)

    def finished_shards(self) -> list[int]:
        return finished_shards(self.path)

    def has_record(self, shard: int) -> bool:
        return (self.path / ledger_file(shard)).exists()

    def shard_range(self, shard: int) -> tuple[int, int]:
        return shard_range(shard, self.pictures, SHARD)

    def pictures_of(self, shard: int) -> int:
        return self.shard_range(shard)[1]


class NoLog:
    """Workers' logs are not what is measured."""

    def say(self, event: str, **values: object) -> None:
        pass


class CountingClaims(FolderClaims):
    """asked: how often a claim was asked for."""

    asked = 0

    def take(self, name: str) -> bool:
        CountingClaims.asked += 1
        return super().take(name)


def measure_simulation(work: Path, pictures: int, workers: int) -> list[Finding]:
    """Labels nothing; every shard is claimed, recorded and let go of by one of the workers."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 4 * workers), hard), hard))
    (work / "store" / LEDGER).mkdir(parents=True)
    store = LedgerOnly(work / "store", pictures)
    draw, CountingClaims.asked = random.Random(workers), 0
    queues = [
        ShardQueue(
            store,  # type: ignore[arg-type]
            CountingClaims(store.path, f"worker {number}"),
            SilentProgress(),
            NoLog(),  # type: ignore[arg-type]
            start=number / workers,
        )
        for number in range(workers)
    ]
    takes: list[Iterator[int]] = [queue.take() for queue in queues]
    waiting = [(draw.uniform(0, START_S), number, -1) for number in range(workers)]
    heapq.heapify(waiting)
    files_s, ended, made = 0.0, 0.0, 0
    while waiting:
        now, number, shard = heapq.heappop(waiting)
        began = time.perf_counter()
        if shard >= 0:
            _record(store, shard)
            queues[number].publish(shard, 0, 0.0)
            made, ended = made + 1, now
        following = next(takes[number], None)
        files_s += time.perf_counter() - began
        if following is not None:
            heapq.heappush(waiting, (now + SHARD_S * draw.uniform(0.8, 1.2), number, following))
    shards = store.shard_count
    assert made == shards == len(finished_shards(store.path)), "a shard was made twice, or never"
    ideal = SHARD_S * shards / workers + START_S / 2
    sizes = [entry.stat().st_size for entry in (store.path / LEDGER).iterdir()]
    began = time.perf_counter()
    finished_shards(store.path)
    listing = time.perf_counter() - began
    name = f"{workers:,} workers: "
    return [
        Finding(name + "claims asked for per shard", "", spread([CountingClaims.asked / shards])),
        Finding(
            name + "file operations of all workers",
            "shards/s",
            spread([shards / files_s]),
            digits=0,
            details=f"claim, record, release, listings: {files_s:.1f} s for {shards:,} shards by one process; so many "
            f"workers make {workers / SHARD_S:.0f} shards a second",
        ),
        Finding(
            name + "simulated time over the ideal",
            "×",
            spread([ended / ideal]),
            details=f"{ended:.0f} s; the last shards end when they end",
        ),
        Finding(
            name + "ledger",
            "MB",
            spread([sum(sizes) / 1e6]),
            details=f"{shards:,} records; {shards * (len(ARRAYS) + 1):,} files in the store; listed in "
            f"{1000 * listing:.1f} ms",
        ),
        Finding(
            name + "memory of the simulation",
            "MB",
            spread([resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]),
            digits=0,
            details="all workers' queues and a Python with torch",
        ),
    ]


def _record(store: LedgerOnly, shard: int) -> None:
    first, count = store.shard_range(shard)
    files = {array_file(name, dimensions, shard): (123_456, "0" * 64) for name, dimensions in ARRAYS}
    content = record_bytes(LedgerRecord(shard, first, count, (), files, "0" * 64))
    with (store.path / ledger_file(shard)).open("xb") as file:
        file.write(content)
