"""Where random draws come from: functions of the seed, the epoch and what is drawn for, and of nothing else.

So they are the same whatever the number of workers or ranks, and after a resume.
"""

from hashlib import blake2b

import numpy as np

_SMALLEST_INPUT, _LARGEST_INPUT, _STRIDE = 320, 608, 32
_BATCHES_PER_SIZE = 10


def sample_rng(seed: int, epoch: int, key: str) -> np.random.Generator:
    """A generator for one sample in one epoch; key: its image key."""
    digest = blake2b(f"{seed} {epoch} {key}".encode("utf-8", "surrogateescape"), digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))


def draw_input_size(seed: int, epoch: int, batch: int) -> int:
    """Multi-scale training: the side of the input, 320 to 608 in steps of 32, for a batch of an epoch (from 0).

    A new one every 10 batches (Darknet, examples/detector.c, `train_detector`). Left out: its last 200 batches at 608.
    """
    rng = sample_rng(seed, epoch, f"input size {batch // _BATCHES_PER_SIZE}")
    return int(rng.integers(_SMALLEST_INPUT // _STRIDE, _LARGEST_INPUT // _STRIDE, endpoint=True)) * _STRIDE
