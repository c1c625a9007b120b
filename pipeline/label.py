"""The label stage as a run: pictures decoded ahead, labelled in batches, published shard by shard."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from data.errors import WorkLeftError
from data.images import RejectedPictureError, decode
from data.pictures import Picture
from data.prefetch import map_ahead
from data.store.canonical import sha256_bytes
from data.store.layout import LABELLED
from data.store.publish import publish_shard
from data.store.reader import LabelStore
from data.store.rows import ShardRows
from data.views import FILL, render, resize_view
from pipeline.interrupt import Interruption
from pipeline.progress import Progress
from stages.label.teacher import Teacher


@dataclass(frozen=True, slots=True)
class Decoded:
    """A picture ready for the teacher, or why it is rejected. pixels: float32 [3, H, W]; size: height, width."""

    pixels: NDArray[np.float32] | None
    size: tuple[int, int]
    reason: str


@dataclass(frozen=True, slots=True)
class LabelResult:
    """What a run did, and what the whole store holds now."""

    labelled: int
    rejected: int
    shards_done: int
    shards: int
    seconds: float


def label_shards(
    store: LabelStore,
    pictures: Sequence[Picture],
    teacher: Teacher,
    *,
    decode_threads: int,
    progress: Progress,
    interruption: Interruption,
) -> LabelResult:
    """Label every shard that has no record yet, in order.

    While one batch is computed the next pictures are decoded and the last shard is written. Raises WorkLeftError when
    interrupted, when a file can't be read, or when a shard can't be written; whole shards stay.
    """
    began = time.monotonic()
    pending = store.pending_shards()
    batch_size, geometry = store.attributes.run.batch_size, store.attributes.input
    done = labelled = rejected = 0
    decoded = map_ahead(
        lambda row: load(pictures[row], store, row),
        (row for shard in pending for row in _rows(store, shard)),
        threads=decode_threads,
        ahead=2 * batch_size + decode_threads,
    )
    with ThreadPoolExecutor(1, thread_name_prefix="publish") as publisher:
        publishing: Future[bool] | None = None
        try:
            for shard in pending:
                rows = store.pending_rows(shard)
                for start in range(0, len(rows), batch_size):
                    if interruption:
                        break
                    progress.note("waiting for decoding")
                    batch = [next(decoded) for _ in range(start, min(start + batch_size, len(rows)))]
                    progress.note("")
                    label_batch(rows, start, batch, teacher, (geometry.height, geometry.width))
                    progress.advance(len(batch))
                if publishing is not None:
                    publishing.result()
                    done += 1
                    publishing = None
                if interruption:
                    break
                labelled += int((rows.status == LABELLED).sum())
                rejected += len(rows.rejected)
                publishing = publisher.submit(publish_shard, store, shard, rows)
            if publishing is not None:
                publishing.result()
                done += 1
        finally:
            decoded.close()
    if interruption and done < len(pending):
        raise WorkLeftError(
            f"interrupted: {len(pending) - done} of {store.shard_count} shards are left. "
            "The same command goes on with them"
        )
    return LabelResult(labelled, rejected, done, store.shard_count, time.monotonic() - began)


def _rows(store: LabelStore, shard: int) -> range:
    first, count = store.shard_range(shard)
    return range(first, first + count)


def load(picture: Picture, store: LabelStore, row: int) -> Decoded:
    """Read, check against the manifest, decode and resize one picture.

    Only what is in the file rejects it; a file that can't be read, or has changed, fails the shard.
    """
    try:
        content = picture.path.read_bytes()
    except OSError as error:
        raise WorkLeftError(
            f"{picture.path} can't be read ({error.strerror}); its shard is left undone. "
            "Mend it and run the same command"
        ) from error
    entry = store.manifest[row]
    if sha256_bytes(content) != entry.digest:
        raise WorkLeftError(
            f"{picture.path} has changed since {store.path} was begun; its shard is left undone. "
            "Put the old file back, or label into a new store"
        )
    geometry = store.attributes.input
    try:
        pixels = decode(content)
    except RejectedPictureError as error:
        return Decoded(None, (0, 0), error.reason)
    rows, columns = pixels.shape[:2]
    view = resize_view(geometry.resize, rows, columns, geometry.height, geometry.width)
    return Decoded(render(pixels, view), (rows, columns), "")


def label_batch(
    rows: ShardRows, start: int, batch: Sequence[Decoded], teacher: Teacher, input_shape: tuple[int, int]
) -> None:
    """Fill rows from `start` on. A rejected picture holds its place in the batch: its neighbours don't depend on it."""
    inputs = torch.full((len(batch), 3, *input_shape), FILL)
    for i, item in enumerate(batch):
        if item.pixels is not None:
            inputs[i] = torch.from_numpy(item.pixels)
    output = teacher.label(inputs)
    for i, item in enumerate(batch):
        if item.pixels is None:
            rows.reject(start + i, item.reason)
            continue
        rows.label(start + i, output.soft_labels[i].numpy(), *item.size)
        for tap, values in output.features.items():
            rows.features[tap][start + i] = values[i].numpy()


def rejected_pictures(store: LabelStore) -> Iterator[tuple[str, str]]:
    """Key and reason of every rejected picture, in manifest order, from the finished shards' records."""
    for shard in store.finished_shards():
        yield from store.record(shard).rejected
