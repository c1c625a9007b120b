"""The label stage as a run: pictures decoded ahead, labelled in batches, published shard by shard."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

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
class Seat:
    """Where a picture goes: its row in the store, and its place in the batch that it is labelled with.

    The threads that decode write into the batch: done by the thread that drives the device, the copying alone would
    keep a fast one waiting.
    """

    row: int
    inputs_B3HW: Tensor
    index: int


@dataclass(frozen=True, slots=True)
class Decoded:
    """A picture in its seat, ready for the teacher. size: height, width; reason: why it is rejected, or ""."""

    seat: Seat
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
    batch_size = store.attributes.run.batch_size
    done = labelled = rejected = 0
    decoded = map_ahead(
        lambda seat: load(pictures[seat.row], store, seat),
        (seat for shard in pending for seat in seats(store, shard, teacher.device)),
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
                    label_batch(rows, start, batch, teacher)
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


def seats(store: LabelStore, shard: int, device: torch.device) -> Iterator[Seat]:
    """A shard's rows in order, in new batches of the store's batch size: none crosses the shard."""
    first, count = store.shard_range(shard)
    run, geometry = store.attributes.run, store.attributes.input
    for start in range(0, count, run.batch_size):
        size = min(run.batch_size, count - start)
        inputs_B3HW = torch.empty(size, 3, geometry.height, geometry.width, pin_memory=device.type == "cuda")
        yield from (Seat(first + start + index, inputs_B3HW, index) for index in range(size))


def load(picture: Picture, store: LabelStore, seat: Seat) -> Decoded:
    """Read, check against the manifest, decode and resize one picture into its seat, which is grey if it is rejected.

    Only what is in the file rejects it; a file that can't be read, or has changed, fails the shard.
    """
    try:
        content = picture.path.read_bytes()
    except OSError as error:
        raise WorkLeftError(
            f"{picture.path} can't be read ({error.strerror}); its shard is left undone. "
            "Mend it and run the same command"
        ) from error
    entry = store.manifest[seat.row]
    if sha256_bytes(content) != entry.digest:
        raise WorkLeftError(
            f"{picture.path} has changed since {store.path} was begun; its shard is left undone. "
            "Put the old file back, or label into a new store"
        )
    geometry = store.attributes.input
    place_3HW = seat.inputs_B3HW[seat.index].numpy()
    try:
        pixels = decode(content)
    except RejectedPictureError as error:
        place_3HW[:] = FILL
        return Decoded(seat, (0, 0), error.reason)
    rows, columns = pixels.shape[:2]
    view = resize_view(geometry.resize, rows, columns, geometry.height, geometry.width)
    place_3HW[:] = render(pixels, view)
    return Decoded(seat, (rows, columns), "")


def label_batch(rows: ShardRows, start: int, batch: Sequence[Decoded], teacher: Teacher) -> None:
    """Fill rows from `start` on. A rejected picture holds its place in the batch: its neighbours don't depend on it."""
    output = teacher.label(batch[0].seat.inputs_B3HW)
    for i, item in enumerate(batch):
        if item.reason:
            rows.reject(start + i, item.reason)
            continue
        rows.label(start + i, output.soft_labels[i].numpy(), *item.size)
        for tap, values in output.features.items():
            rows.features[tap][start + i] = values[i].numpy()


def rejected_pictures(store: LabelStore) -> Iterator[tuple[str, str]]:
    """Key and reason of every rejected picture, in manifest order, from the finished shards' records."""
    for shard in store.finished_shards():
        yield from store.record(shard).rejected
