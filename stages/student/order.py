"""Which pictures make which batch: a function of the seed and the epoch only, so that a resumed run repeats it."""

import numpy as np
from numpy.typing import NDArray

from data.augment import sample_rng


def batches_per_epoch(pictures: int, batch_size: int) -> int:
    """Whole batches in one pass; a set smaller than a batch is one batch."""
    return max(1, pictures // batch_size)


def whole_batches(pictures: int, batch_size: int) -> list[NDArray[np.int64]]:
    """Every picture once, in order; the last batch may be smaller. For validation."""
    return [np.arange(start, min(start + batch_size, pictures)) for start in range(0, pictures, batch_size)]


def epoch_batches(
    labelled: NDArray[np.int64],
    unlabelled: NDArray[np.int64],
    *,
    batch_size: int,
    labelled_share: float | None,
    seed: int,
    epoch: int,
) -> list[NDArray[np.int64]]:
    """The batches of one epoch, each int64 [≤ batch_size] of indices into the pictures.

    Without a share all pictures are shuffled together, and what does not fill a batch waits for the next epoch's
    shuffle. With a share every batch holds round(share · batch_size) labelled pictures, at least one of either kind;
    the epoch keeps its length, and the kind that runs out is gone through again in a new order.
    """
    rng = sample_rng(seed, epoch, "order")
    total = len(labelled) + len(unlabelled)
    count = batches_per_epoch(total, batch_size)
    if labelled_share is None or not len(labelled) or not len(unlabelled):
        order = rng.permutation(np.concatenate([labelled, unlabelled]))
        return [order[i * batch_size : (i + 1) * batch_size] for i in range(count)]
    size = min(batch_size, total)
    with_labels = min(max(round(labelled_share * size), 1), size - 1)
    known = _cycled(rng, labelled, count * with_labels)
    unknown = _cycled(rng, unlabelled, count * (size - with_labels))
    return [
        np.concatenate([a, b])
        for a, b in zip(known.reshape(count, with_labels), unknown.reshape(count, size - with_labels), strict=True)
    ]


def _cycled(rng: np.random.Generator, indices: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Permutations of the indices, one after the other, cut to the length."""
    rounds = -(-length // len(indices))
    return np.concatenate([rng.permutation(indices) for _ in range(rounds)])[:length]
