"""Where everything lies in a store: array names, shapes, chunks, file names, and the folder for work in progress."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

from data.errors import RequestError
from data.store.schema import StoreAttributes

PENDING, LABELLED, REJECTED, GAP = 0, 1, 2, 3

SOFT_LABELS = "soft_labels"
FEATURES = "features"
IMAGE_KEY, IMAGE_SIZE, IMAGE_DIGEST, IMAGE_STATUS = "image/key", "image/size", "image/digest", "image/status"
GROUP = "zarr.json"
GROUP_FILES = (GROUP, "features/zarr.json", "image/zarr.json")
MANIFEST = "manifest.jsonl"
LEDGER = "ledger"

# Measured: docs/store.md, "Inner chunks" (benchmarks/store_chunks.py).
LABEL_CHUNK = 64
FEATURE_CHUNK = 4

SHARD_BYTES = 256_000_000

FeatureShape = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class ArrayLayout:
    """One array. row_shape: without axis 0. chunk: pictures per inner chunk, a divisor of the shard size."""

    name: str
    row_shape: tuple[int, ...]
    dtype: str
    chunk: int


def array_layouts(
    attributes: StoreAttributes,
    features: Mapping[str, FeatureShape],
    label_chunk: int = LABEL_CHUNK,
    feature_chunk: int = FEATURE_CHUNK,
) -> tuple[ArrayLayout, ...]:
    """Every array of a store, features last and sorted by tap.

    features: tap to [C, H', W']. label_chunk, feature_chunk: wanted pictures per inner chunk; the nearest divisor of
    the shard size is taken. Raises RequestError for a tap that cannot be a folder.
    """
    size = attributes.shard_size
    for tap in features:
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", tap) or tap == "zarr.json":
            raise RequestError(
                f"The tap name {tap!r} cannot be a folder: letters, digits, '_', '-' and '.' were expected."
            )
    return (
        ArrayLayout(SOFT_LABELS, attributes.label_shape, "float16", nearest_divisor(size, label_chunk)),
        ArrayLayout(IMAGE_KEY, (), "string", size),
        ArrayLayout(IMAGE_SIZE, (2,), "int32", size),
        ArrayLayout(IMAGE_DIGEST, (32,), "uint8", size),
        ArrayLayout(IMAGE_STATUS, (), "uint8", size),
        *(
            ArrayLayout(f"{FEATURES}/{tap}", features[tap], "float16", nearest_divisor(size, feature_chunk))
            for tap in sorted(features)
        ),
    )


def nearest_divisor(number: int, wanted: int) -> int:
    """The divisor of `number` nearest to `wanted` in ratio; the smaller of two equally near."""
    divisors = [d for d in range(1, number + 1) if number % d == 0]
    return min(divisors, key=lambda d: (max(d / wanted, wanted / d), d))


def default_shard_size(
    pictures: int, label_shape: tuple[int, int, int, int], features: Mapping[str, FeatureShape]
) -> int:
    """Pictures per shard: a power of two, at most 1024, whose raw values stay below 256 MB over all arrays.

    A worker holds one shard in memory and a kill loses at most that, hence the bound; six files per shard without
    features make 6,000 files of a million pictures. Small sets get 16 shards or more, of 32 pictures or more, so that
    several workers have something to do and progress is kept.
    """
    row_bytes = 2 * (prod(label_shape) + sum(prod(shape) for shape in features.values()))
    fits = max(1, SHARD_BYTES // row_bytes)
    shares = max(32, pictures // 16)
    return 1 << (min(1024, fits, shares).bit_length() - 1)


def shard_count(pictures: int, shard_size: int) -> int:
    """Shards of a store of so many pictures."""
    return -(-pictures // shard_size)


def shard_range(shard: int, pictures: int, shard_size: int) -> tuple[int, int]:
    """First picture of a shard, and how many it has; only the last one may have fewer than the shard size."""
    first = shard * shard_size
    return first, min(shard_size, pictures - first)


def array_file(array: str, dimensions: int, shard: int) -> str:
    """Path of one array's file of a shard inside the store: chunk-key separator '.', axis 0 alone is divided."""
    return f"{array}/c.{shard}{'.0' * (dimensions - 1)}"


def ledger_file(shard: int) -> str:
    """Path of a shard's ledger record inside the store."""
    return f"{LEDGER}/{shard:08d}.json"


def work_path(store: Path) -> Path:
    """`STORE.work/`, beside the store and on its file system: staging, locks, logs; may be deleted at any time."""
    real = store.resolve()
    return real.with_name(f"{real.name}.work")
