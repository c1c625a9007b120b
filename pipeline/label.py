"""The label stage as a run: pictures decoded ahead, labelled in batches, published shard by shard."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby, islice

from data.errors import DiskFullError, WorkLeftError
from data.prefetch import map_ahead
from data.store.publish import publish_shard
from data.store.reader import LabelStore
from data.store.rows import ShardRows
from pipeline.interrupt import Interruption
from pipeline.label_input import Decoded, PathOf, Seat, load, seats
from pipeline.shard_queue import ShardQueue
from stages.label.teacher import Teacher

FAILURES_IN_A_ROW = 10
"""A shard that can't be made is left for others; so many one after another are the worker's fault, or everybody's."""


def label_shards(
    store: LabelStore,
    path_of: PathOf,
    teacher: Teacher,
    queue: ShardQueue,
    *,
    decode_threads: int,
    interruption: Interruption,
) -> None:
    """Label the shards that the queue gives until it gives none.

    While one batch is computed the next pictures are decoded and the last shard is written. A shard that can't be made
    (a file that can't be read or has changed, an answer of the teacher that is not finite, a failing disk) is left,
    the queue knows why, and the others are made. When interrupted, what is in work is abandoned. Raises DiskFullError,
    and WorkLeftError after many failures in a row; whole shards stay.
    """
    batch_size = store.attributes.run.batch_size

    def offered() -> Iterator[Seat]:
        for shard in queue.take():
            if interruption:
                return
            yield from seats(store, shard, teacher.device)

    decoded = map_ahead(
        lambda seat: load(path_of(seat.row), store, seat),
        offered(),
        threads=decode_threads,
        ahead=2 * batch_size + decode_threads,
    )
    with ThreadPoolExecutor(1, thread_name_prefix="publish") as publisher:
        publishing: tuple[int, Future[tuple[float, int]]] | None = None
        in_a_row = 0
        try:
            for shard, pictures in groupby(decoded, lambda item: item.seat.shard):
                rows = label_shard(store, shard, pictures, teacher, queue, interruption)
                if publishing is not None:
                    settle(queue, *publishing)
                    publishing = None
                if interruption and rows is None:
                    break
                in_a_row = in_a_row + 1 if shard in queue.failed else 0
                if in_a_row == FAILURES_IN_A_ROW:
                    raise WorkLeftError(queue.failed[shard])
                if rows is not None:
                    publishing = shard, publisher.submit(publish, store, shard, rows)
            if publishing is not None:
                settle(queue, *publishing)
        finally:
            decoded.close()
            queue.abandon()


def label_shard(
    store: LabelStore,
    shard: int,
    pictures: Iterator[Decoded],
    teacher: Teacher,
    queue: ShardQueue,
    interruption: Interruption,
) -> ShardRows | None:
    """The shard's rows, or None where it was interrupted or failed."""
    rows, start = store.pending_rows(shard), 0
    while start < len(rows):
        if interruption:
            return None
        queue.progress.note("waiting for decoding")
        batch = list(islice(pictures, store.attributes.run.batch_size))
        queue.progress.note("")
        failure = next((item.failure for item in batch if item.failure), "")
        if not failure and not all(item.gap for item in batch):
            try:
                label_batch(rows, start, batch, teacher)
            except WorkLeftError as error:
                failure = str(error)
        if failure:
            queue.fail(shard, failure)
            return None
        queue.advance(sum(not item.gap for item in batch))
        start += len(batch)
    return rows


def label_batch(rows: ShardRows, start: int, batch: Sequence[Decoded], teacher: Teacher) -> None:
    """Fill rows from `start` on. A rejected picture holds its place in the batch: its neighbours don't depend on it."""
    output = teacher.label(batch[0].seat.inputs_B3HW)
    for i, item in enumerate(batch):
        if item.gap:
            continue
        if item.reason:
            rows.reject(start + i, item.reason)
            continue
        rows.label(start + i, output.soft_labels[i].numpy(), *item.size)
        for tap, values in output.features.items():
            rows.features[tap][start + i] = values[i].numpy()


def publish(store: LabelStore, shard: int, rows: ShardRows) -> tuple[float, int]:
    """`publish_shard`; returns the seconds it took and the number of rejected pictures."""
    began = time.monotonic()
    publish_shard(store, shard, rows)
    return time.monotonic() - began, len(rows.rejected)


def settle(queue: ShardQueue, shard: int, publishing: "Future[tuple[float, int]]") -> None:
    """Wait for a shard's publishing and tell the queue how it went; a full disk is raised."""
    try:
        seconds, rejected = publishing.result()
    except DiskFullError as error:
        queue.fail(shard, str(error))
        raise
    except WorkLeftError as error:
        queue.fail(shard, str(error))
    else:
        queue.publish(shard, rejected, seconds)


def rejected_pictures(store: LabelStore) -> Iterator[tuple[str, str]]:
    """Key and reason of every rejected picture, in manifest order, from the finished shards' records."""
    for shard in store.finished_shards():
        yield from store.record(shard).rejected
