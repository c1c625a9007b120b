"""One worker on a store, alone or among many: label what can be had, wait for what others hold, say what is left."""

import os
import time
from dataclasses import dataclass

from data.errors import WorkLeftError
from data.store.claims import EXPIRY_S
from data.store.reader import LabelStore
from pipeline.interrupt import Interruption
from pipeline.label import label_shards
from pipeline.label_input import PathOf
from pipeline.shard_queue import ShardQueue
from stages.label.teacher import Teacher

WATCH = "watch"
"""The claim of the one idle worker that stays for shards whose workers die; the others may leave."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 10.0


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How a process takes part in the work, which changes nothing in the store.

    among_many: take the list of pictures from a store that is there, and leave when the rest is with others.
    listed: the process that started this one has let the store grow by what is new.
    time_limit_s: from now, None for none. claim_expiry_s: after which others take over a claim that was not touched.
    share: processes of one command on this machine, which share its cores. quiet: another process shows the progress.
    """

    among_many: bool = False
    listed: bool = False
    time_limit_s: float | None = None
    claim_expiry_s: float = EXPIRY_S
    share: int = 1
    quiet: bool = False


def cores(share: int = 1) -> int:
    """Threads that one of so many processes on this machine should use."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, there // share)


def label_what_is_left(
    store: LabelStore,
    path_of: PathOf,
    teacher: Teacher,
    queue: ShardQueue,
    *,
    among_many: bool,
    decode_threads: int,
    interruption: Interruption,
) -> None:
    """Label until every shard has a record, waiting for those that others claim: one may die.

    Among many, all but one leave instead of waiting. Returns when the store is whole or the rest is with others; raises
    WorkLeftError when this worker leaves shards undone: interrupted, out of time, or failed in them.
    """
    queue.log.say("begin")
    try:
        reason = _label(store, path_of, teacher, queue, among_many, decode_threads, interruption)
    except BaseException as error:
        queue.log.say("end", reason=str(error) or "interrupted")
        raise
    queue.log.say("end", reason=reason)


def _label(
    store: LabelStore,
    path_of: PathOf,
    teacher: Teacher,
    queue: ShardQueue,
    among_many: bool,
    decode_threads: int,
    interruption: Interruption,
) -> str:
    """Why it returns."""
    pause_s, watching = FIRST_PAUSE_S, False
    while True:
        done = len(queue.done)
        label_shards(store, path_of, teacher, queue, decode_threads=decode_threads, interruption=interruption)
        left = queue.left()
        if interruption or queue.out_of_time or not set(left) - queue.failed.keys():
            break
        watching = watching or not among_many or queue.claims.take(WATCH)
        if not watching:
            return "the rest is with others"
        queue.progress.note(f"waiting for {len(left)} shards of other workers")
        pause_s = FIRST_PAUSE_S if len(queue.done) > done else min(2 * pause_s, LONGEST_PAUSE_S)
        wait(pause_s, interruption)
    if left:
        raise WorkLeftError(_what_is_left(queue, left, interruption))
    return "the store is whole"


def wait(seconds: float, interruption: Interruption) -> None:
    """So long, or until a warning comes."""
    until = time.monotonic() + seconds
    while not interruption and (rest := until - time.monotonic()) > 0:
        time.sleep(min(0.1, rest))


def _what_is_left(queue: ShardQueue, left: list[int], interruption: Interruption) -> str:
    many = f"{len(left)} of {queue.store.shard_count} shards are left"
    failed = sorted(set(left) & queue.failed.keys())
    reason = ""
    if failed:
        others = f", and {len(failed) - 1} more shards failed" if len(failed) > 1 else ""
        reason = f"shard {failed[0]} is left undone: {queue.failed[failed[0]]}{others}. "
    if interruption:
        return f"{reason}interrupted: {many}. The same command goes on with them"
    if queue.out_of_time:
        return f"{reason}the time limit is near: {many}. The same command goes on with them"
    return f"{reason}{many[0].upper()}{many[1:]}; the same command goes on with them"
