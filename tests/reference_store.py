"""A tiny store and the values that belong in it, as functions of a picture's number alone."""

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.store.create import codec_pipeline, create_store
from data.store.manifest import Manifest, ManifestEntry, make_manifest
from data.store.reader import LabelStore
from data.store.rows import ShardRows
from data.store.schema import FmNmsAttributes, InputAttributes, RunAttributes, StoreAttributes, TeacherAttributes

PICTURES = 7
SHARD_SIZE = 3
REJECTED_PICTURE = 4
EMPTY_PICTURE = 1
FEATURES = {"conv6": (8, 2, 2)}


def tiny_attributes(shard_size: int = SHARD_SIZE) -> StoreAttributes:
    return StoreAttributes(
        shard_size,
        "",
        TeacherAttributes("thin", "a" * 64, None, ((1.08, 1.19), (3.42, 4.41)), ("red", "white", "Blutplättchen")),
        InputAttributes(64, 96, "letterbox", "darknet", 0.5, "RGB"),
        FmNmsAttributes("local-max", 3, 0.01),
        RunAttributes("cpu", "float32", 8, 1, "contiguous", codec_pipeline(), {"numpy": np.__version__}),
    )


def tiny_manifest(pictures: int = PICTURES) -> Manifest:
    names = [f"blood/Zelle {i:02d}.jpg" for i in range(pictures)]
    return make_manifest(
        ManifestEntry(name, 100 + i, hashlib.sha256(name.encode()).hexdigest()) for i, name in enumerate(names)
    )


def make_store(path: Path, pictures: int = PICTURES) -> LabelStore:
    create_store(path, tiny_attributes(), tiny_manifest(pictures), FEATURES)
    return LabelStore.open(path)


def soft_labels_of(picture: int) -> NDArray[np.float16]:
    """[2, 8, 2, 3], a third of the slots kept; none in the picture that is empty."""
    random = np.random.default_rng(picture)
    entries = random.normal(size=(2, 8, 2, 3)).astype(np.float16)
    kept = (random.random((2, 1, 2, 3)) < 0.3) & (picture != EMPTY_PICTURE)
    return np.where(kept, entries, np.float16(0))


def features_of(picture: int) -> NDArray[np.float16]:
    return np.random.default_rng(1000 + picture).normal(size=FEATURES["conv6"]).astype(np.float16)


def filled_rows(store: LabelStore, shard: int, scale: float = 1.0) -> ShardRows:
    """What a worker hands to `publish_shard`. scale: another one makes a worker that computes other values."""
    rows = store.pending_rows(shard)
    first, count = store.shard_range(shard)
    for row in range(count):
        if not rows.keys[row]:
            continue  # a gap
        if first + row == REJECTED_PICTURE:
            rows.reject(row, "truncated JPEG")
            continue
        rows.label(row, soft_labels_of(first + row) * np.float16(scale), 40 + row, 60 + row)
        for tap, values in rows.features.items():
            assert tap in FEATURES
            values[row] = features_of(first + row)
    return rows
