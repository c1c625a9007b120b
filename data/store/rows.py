"""The pictures of one shard in memory, on their way into the store or out of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.errors import RequestError, WorkLeftError
from data.store.layout import GAP, LABELLED, PENDING, REJECTED, FeatureShape
from data.store.manifest import Manifest

FLOAT16_INFINITY = 0x7C00


@dataclass(frozen=True, slots=True, eq=False)
class ShardRows:
    """n pictures in manifest order.

    soft_labels: float16 [n, A, 5+K, H, W]. features: tap to float16 [n, C, H', W']. keys: n strings. sizes: int32
    [n, 2], height and width of the decoded picture, 0 when rejected. digests: uint8 [n, 32]. status: uint8 [n].
    rejected: key and reason of every rejected picture, in order.
    """

    soft_labels: NDArray[np.float16]
    features: Mapping[str, NDArray[np.float16]]
    keys: tuple[str, ...]
    sizes: NDArray[np.int32]
    digests: NDArray[np.uint8]
    status: NDArray[np.uint8]
    rejected: list[tuple[str, str]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.keys)

    def label(self, row: int, soft_labels: NDArray[np.float16], height: int, width: int) -> None:
        """Fill the row of a picture that was labelled, but for its features; height, width: of the decoded picture."""
        self.soft_labels[row] = soft_labels
        self.sizes[row] = height, width
        self.status[row] = LABELLED

    def reject(self, row: int, reason: str) -> None:
        """Mark a picture that cannot be read. Call in row order; reason: what is in the file, without any path."""
        for values in (self.soft_labels, *self.features.values()):
            values[row] = np.nan
        self.sizes[row] = 0
        self.status[row] = REJECTED
        self.rejected.append((self.keys[row], reason))


def pending_rows(
    manifest: Manifest,
    first: int,
    count: int,
    label_shape: tuple[int, int, int, int],
    features: Mapping[str, FeatureShape],
) -> ShardRows:
    """Rows first … first+count of the manifest before any work: NaN, size 0, status pending, or gap without a key."""
    keys = manifest.keys[first : first + count]
    return ShardRows(
        np.full((count, *label_shape), np.nan, np.float16),
        {tap: np.full((count, *shape), np.nan, np.float16) for tap, shape in features.items()},
        keys,
        np.zeros((count, 2), np.int32),
        manifest.digests[first : first + count].copy(),
        np.array([PENDING if key else GAP for key in keys], np.uint8),
    )


def require_publishable(
    rows: ShardRows,
    keys: tuple[str, ...],
    digests: NDArray[np.uint8],
    label_shape: tuple[int, int, int, int],
    features: Mapping[str, FeatureShape],
) -> None:
    """Refuse rows that must not reach a store. The rest of the arguments: what the manifest and the store say of them.

    Raises ValueError for a caller's mistake (shapes, dtypes, a row without a verdict), RequestError for a picture that
    changed since the store was made, WorkLeftError for a labelled row that is not finite.
    """
    if rows.features.keys() != features.keys() or rows.keys != keys:
        raise ValueError("the rows' taps or keys are not those of this shard")
    expected: list[tuple[str, NDArray[Any], tuple[int, ...], str]] = [
        ("soft_labels", rows.soft_labels, label_shape, "float16"),
        ("sizes", rows.sizes, (2,), "int32"),
        ("digests", rows.digests, (32,), "uint8"),
        ("status", rows.status, (), "uint8"),
        *((tap, rows.features[tap], shape, "float16") for tap, shape in features.items()),
    ]
    for name, values, shape, dtype in expected:
        if values.shape != (len(keys), *shape) or values.dtype != dtype:
            raise ValueError(f"{name} is {values.dtype} {values.shape}, expected {dtype} {(len(keys), *shape)}")
    changed = np.flatnonzero((rows.digests != digests).any(axis=1))
    if len(changed):
        raise RequestError(
            f"The picture {rows.keys[changed[0]]} changed since its store was made ({len(changed)} in this shard): "
            "put the picture back, or label into a new store."
        )
    gaps = np.array([not key for key in keys], bool)
    if not (rows.status[gaps] == GAP).all():
        raise ValueError("a gap of the manifest is none in the shard")
    if not np.isin(rows.status[~gaps], (LABELLED, REJECTED)).all():
        raise ValueError("a row is neither labelled nor rejected")
    if [key for key, _ in rows.rejected] != [rows.keys[i] for i in np.flatnonzero(rows.status == REJECTED)]:
        raise ValueError("the rejected pictures are not those with the status rejected, in order")
    for name, values in (("soft labels", rows.soft_labels), *rows.features.items()):
        if not np.isnan(values[rows.status != LABELLED]).all():
            raise ValueError(f"a row of {name} without a label is not NaN")
        bad = np.flatnonzero(not_finite(values) & (rows.status == LABELLED))
        if len(bad):
            raise WorkLeftError(
                f"The teacher's {name} for {rows.keys[bad[0]]} do not fit float16 (NaN or beyond 65504): "
                "label with another --precision, or without that tap."
            )


def not_finite(values: NDArray[np.float16]) -> NDArray[np.bool_]:
    """Which rows hold a NaN or an infinity. [n, ...] to bool [n]. On the bits, faster than np.isfinite."""
    bits = values.view(np.uint16).reshape(len(values), -1)
    # one row at a time, or the masked copy would double the memory that a shard takes
    return np.array([np.bitwise_and(row, 0x7FFF).max(initial=0) >= FLOAT16_INFINITY for row in bits], bool)
