"""Which shards this worker labels, and when it stops: one at a time, by ledger and claims, within the time limit."""

import os
import random
import socket
import time
import zlib
from collections.abc import Iterator, Mapping

from data.store.claims import Claims
from data.store.reader import LabelStore
from pipeline.progress import Progress
from pipeline.worker_log import WorkerLog

LOOKED_AT = 16
"""Claims of others that are looked at per round: a thousand idle workers that each look at a thousand claims would stop
the file system, and between them these see all."""

LISTING_S = 5.0
"""How old a listing of the ledger may be once it has proved out of date."""


def starting_point(alone: bool, environment: Mapping[str, str] = os.environ) -> float:
    """Where in the store a worker begins, 0 to 1: far from the others, so that two seldom want the same shard.

    By its place among a Slurm array's tasks and a step's processes; else at the beginning if it is alone, or by chance.
    """
    tasks, processes = int(environment.get("SLURM_ARRAY_TASK_COUNT", 1)), int(environment.get("SLURM_NTASKS", 1))
    if tasks * processes == 1:
        return 0.0 if alone else zlib.crc32(f"{socket.gethostname()} {os.getpid()}".encode()) / 2**32
    task = int(environment.get("SLURM_ARRAY_TASK_ID", 0)) - int(environment.get("SLURM_ARRAY_TASK_MIN", 0))
    process = int(environment.get("SLURM_PROCID", 0))
    return (task + process / processes) / tasks % 1


class ShardQueue:
    """The shards of a store as one worker gets them.

    in_work: shard to the time it was taken, of those that are claimed and not published. done: those that this worker
    published. rejected: of their pictures. failed: shard to why; they are not taken again by this worker. out_of_time:
    whether a shard was left because it would not have ended before the deadline.
    """

    def __init__(
        self,
        store: LabelStore,
        claims: Claims,
        progress: Progress,
        log: WorkerLog,
        *,
        start: float = 0.0,
        deadline: float | None = None,
    ) -> None:
        """start: 0 to 1, the part of the store to begin with. deadline: by time.monotonic()."""
        self.store, self.claims, self.progress, self.log = store, claims, progress, log
        self.first = int(start * store.shard_count)
        self.deadline = deadline
        self.in_work: dict[int, float] = {}
        self.failed: dict[int, str] = {}
        self.done: set[int] = set()
        self.rejected = 0
        self.out_of_time = False
        self._elsewhere: set[int] = set(store.finished_shards())
        self._began = self._ended = time.monotonic()
        self._labelled, self._slowest_publishing_s = 0, 0.0

    def left(self) -> list[int]:
        """Shards without a record now, in this worker's order; those of others that were published since are reported
        to the progress."""
        finished = set(self.store.finished_shards())
        new = finished - self._elsewhere - self.done - self.in_work.keys()
        self._elsewhere |= new
        if new:
            self.progress.skip(sum(self.store.pictures_of(shard) for shard in new))
        left = [shard for shard in range(self.store.shard_count) if shard not in finished]
        return [shard for shard in left if shard >= self.first] + [shard for shard in left if shard < self.first]

    def take(self) -> Iterator[int]:
        """Claim shards and yield them, until none can be had at the moment.

        Shards that nobody claims come first; of those that are claimed a few are looked at last, in case their workers
        are dead. The ledger is listed once per round and not asked for every shard.
        """
        while True:
            took = False
            listed = time.monotonic()
            claimed = {int(name) for name in self.claims.names() if name.isdigit()}
            mine = self.failed.keys() | self.in_work.keys()
            round_ = [shard for shard in self.left() if shard not in mine]
            free = [shard for shard in round_ if shard not in claimed]
            held = [shard for shard in round_ if shard in claimed]
            for shard in (*free, *random.sample(held, min(LOOKED_AT, len(held)))):
                if not self._fits(shard):
                    self.out_of_time = True
                    return
                if self._claim(shard):
                    took = True
                    yield shard
                elif time.monotonic() - listed > LISTING_S and shard not in claimed:
                    break
            else:
                if not took:
                    return

    @property
    def pictures(self) -> int:
        """Of the shards that this worker published."""
        return sum(self.store.pictures_of(shard) for shard in self.done)

    @property
    def seconds(self) -> float:
        """Since it began, until its last shard."""
        return self._ended - self._began

    def advance(self, pictures: int) -> None:
        """So many pictures more were labelled."""
        self._labelled += pictures
        self.progress.advance(pictures)

    def publish(self, shard: int, rejected: int, seconds: float) -> None:
        """The shard has its record, by this worker or another. rejected: of its pictures. seconds: to write it."""
        self._slowest_publishing_s = max(self._slowest_publishing_s, seconds)
        self.done.add(shard)
        self._ended = time.monotonic()
        self.rejected += rejected
        pictures, took = self.store.pictures_of(shard), time.monotonic() - self.in_work[shard]
        self.log.say("shard", shard=shard, pictures=pictures, rejected=rejected, seconds=round(took, 3))
        self._release(shard)

    def fail(self, shard: int, reason: str) -> None:
        """The shard can't be made here; another worker may try."""
        self.failed[shard] = reason
        self.log.say("failed", shard=shard, reason=reason)
        self._release(shard)

    def abandon(self) -> None:
        """Let go of everything that is in work."""
        for shard in list(self.in_work):
            self._release(shard)

    def _claim(self, shard: int) -> bool:
        if not self.claims.take(name_of(shard)):
            return False
        if self.store.has_record(shard):  # published since the ledger was listed
            self.claims.release(name_of(shard))
            return False
        self.in_work[shard] = time.monotonic()
        while self.claims.taken_over:
            name, holder = self.claims.taken_over.pop()
            if name.isdigit():
                self.log.say("taken over", shard=int(name), worker_before=holder)
        return True

    def _release(self, shard: int) -> None:
        del self.in_work[shard]
        self.claims.release(name_of(shard))

    def _fits(self, shard: int) -> bool:
        """Whether the shard, after those in work, would be published in time, at the pace so far."""
        if self.deadline is None:
            return True
        now = time.monotonic()
        pictures = sum(self.store.pictures_of(each) for each in (shard, *self.in_work))
        pace_s = (now - self._began) / self._labelled if self._labelled else 0.0
        return now + pictures * pace_s + self._slowest_publishing_s < self.deadline


def name_of(shard: int) -> str:
    """Of its claim."""
    return f"{shard:08d}"
