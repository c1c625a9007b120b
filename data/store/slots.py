"""Every picture's kept slots in a few flat arrays: what a training run holds instead of a million dense tensors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from data.store.layout import IMAGE_STATUS, LABELLED, SOFT_LABELS
from data.store.reader import LabelStore

BOX_ENTRIES = 5
"""x, y, w, h and objectness come before the classes."""


@dataclass(frozen=True, slots=True, eq=False)
class KeptSlots:
    """One picture's slots that are not all zeros, by ascending flat index a·H·W + row·W + column.

    indices: int16 [n, 3], anchor, row, column. entries: float16 [n, 5+K], as stored.
    """

    indices: NDArray[np.int16]
    entries: NDArray[np.float16]

    def __len__(self) -> int:
        return len(self.indices)


@dataclass(frozen=True, slots=True, eq=False)
class SoftLabelTable:
    """All pictures of a store in manifest order; some 60 bytes per kept slot of 20 classes.

    offsets: int64 [N+1], picture i has the slots offsets[i] … offsets[i+1]. indices: int16 [M, 3]. entries: float16
    [M, 5+K]. status: uint8 [N] as in the store, 0 for the pictures of unfinished shards. label_shape: [A, 5+K, H, W].
    """

    offsets: NDArray[np.int64]
    indices: NDArray[np.int16]
    entries: NDArray[np.float16]
    status: NDArray[np.uint8]
    label_shape: tuple[int, int, int, int]

    def __len__(self) -> int:
        return len(self.status)

    def kept(self, picture: int) -> KeptSlots:
        """Views, not copies. Raises ValueError for a picture without a label: its teacher terms are masked."""
        if self.status[picture] != LABELLED:
            raise ValueError(f"picture {picture} has no label (status {self.status[picture]})")
        start, stop = self.offsets[picture], self.offsets[picture + 1]
        return KeptSlots(self.indices[start:stop], self.entries[start:stop])

    def dense(self, picture: int) -> NDArray[np.float32]:
        """The stored tensor [A, 5+K, H, W]. Raises ValueError as `kept` does."""
        kept = self.kept(picture)
        dense = np.zeros(self.label_shape, np.float32)
        anchor, row, column = kept.indices.T
        dense[anchor, :, row, column] = kept.entries
        return dense

    def with_classes(self, order: Sequence[int]) -> "SoftLabelTable":
        """The same table with its classes in another order: the new class i is the old class order[i]."""
        columns = [*range(BOX_ENTRIES), *(BOX_ENTRIES + old for old in order)]
        return replace(self, entries=self.entries[:, columns])


def load_kept_slots(
    store: LabelStore, progress: Callable[[int, int], None] = lambda done, total: None
) -> SoftLabelTable:
    """Reads the soft labels of every finished shard, one shard in memory at a time.

    progress: called after each shard with shards read and shards there. Raises StoreDamageError.
    """
    status = np.zeros(len(store), np.uint8)
    counts = np.zeros(len(store), np.int64)
    indices = [np.empty((0, 3), np.int16)]
    entries = [np.empty((0, store.attributes.entries), np.float16)]
    finished = store.finished_shards()
    for done, shard in enumerate(finished, 1):
        first, count = store.shard_range(shard)
        rows = slice(first, first + count)
        labels_NAEHW = store.read_rows(SOFT_LABELS, rows.start, rows.stop)
        status[rows] = store.read_rows(IMAGE_STATUS, rows.start, rows.stop)
        store.require_finite(shard, SOFT_LABELS, labels_NAEHW, status[rows])
        labels_NAEHW[status[rows] != LABELLED] = 0
        # on the bits, faster than on float16; the shift drops the sign, for -0.0 is a zero
        kept_NAHW = np.bitwise_or.reduce(labels_NAEHW.view(np.uint16), axis=2) << 1 != 0
        picture, anchor, row, column = np.nonzero(kept_NAHW)
        counts[rows] = np.bincount(picture, minlength=count)
        indices.append(np.stack([anchor, row, column], axis=1).astype(np.int16))
        entries.append(labels_NAEHW[picture, anchor, :, row, column])
        progress(done, len(finished))
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return SoftLabelTable(
        offsets, np.concatenate(indices), np.concatenate(entries), status, store.attributes.label_shape
    )
