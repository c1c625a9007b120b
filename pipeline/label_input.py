"""Pictures on their way to the teacher: read, checked against the manifest, decoded and resized, in threads."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from data.images import RejectedPictureError, decode
from data.pictures import relative_path, root_label
from data.store.canonical import sha256_bytes
from data.store.reader import LabelStore
from data.views import FILL, render, resize_view


@dataclass(frozen=True, slots=True)
class Seat:
    """Where a picture goes: its shard and row in the store, and its place in the batch that it is labelled with.

    The threads that decode write into the batch: done by the thread that drives the device, the copying alone would
    keep a fast one waiting.
    """

    shard: int
    row: int
    inputs_B3HW: Tensor
    index: int


@dataclass(frozen=True, slots=True)
class Decoded:
    """A picture in its seat, ready for the teacher. size: height, width; reason: why it is rejected, or "".

    failure: why it can't be said what is in the file, so that its shard can't be made, or "". gap: there is no picture.
    """

    seat: Seat
    size: tuple[int, int] = (0, 0)
    reason: str = ""
    failure: str = ""
    gap: bool = False


PathOf = Callable[[int], Path | None]
"""Row of the store to the picture's file, None for a gap."""


def paths_of_rows(store: LabelStore, roots: Mapping[str, Path]) -> PathOf:
    """Where the store's pictures lie. roots: root label to folder."""
    keys = store.manifest.keys
    return lambda row: roots[root_label(keys[row])] / relative_path(keys[row]) if keys[row] else None


def seats(store: LabelStore, shard: int, device: torch.device) -> Iterator[Seat]:
    """A shard's rows in order, in new batches of the store's batch size: none crosses the shard."""
    first, count = store.shard_range(shard)
    run, geometry = store.attributes.run, store.attributes.input
    for start in range(0, count, run.batch_size):
        size = min(run.batch_size, count - start)
        inputs_B3HW = torch.empty(size, 3, geometry.height, geometry.width, pin_memory=device.type == "cuda")
        yield from (Seat(shard, first + start + index, inputs_B3HW, index) for index in range(size))


def load(path: Path | None, store: LabelStore, seat: Seat) -> Decoded:
    """Read, check against the manifest, decode and resize one picture into its seat, which is grey if it is rejected.

    Only what is in the file rejects it; a file that can't be read, or has changed, fails the shard.
    """
    place_3HW = seat.inputs_B3HW[seat.index].numpy()
    if path is None:
        place_3HW[:] = FILL
        return Decoded(seat, gap=True)
    try:
        content = path.read_bytes()
    except OSError as error:
        return Decoded(seat, failure=f"{path} can't be read ({error.strerror}); mend it")
    entry = store.manifest[seat.row]
    if sha256_bytes(content) != entry.digest:
        return Decoded(
            seat,
            failure=f"{path} has changed since {store.path} was begun; put the old file back, or label anew elsewhere",
        )
    geometry = store.attributes.input
    try:
        pixels = decode(content)
    except RejectedPictureError as error:
        place_3HW[:] = FILL
        return Decoded(seat, reason=error.reason)
    rows, columns = pixels.shape[:2]
    view = resize_view(geometry.resize, rows, columns, geometry.height, geometry.width)
    place_3HW[:] = render(pixels, view)
    return Decoded(seat, (rows, columns))
