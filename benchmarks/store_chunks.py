"""How many pictures an inner chunk should hold: time to write and read, and bytes per picture, by chunk size.

    python benchmarks/store_chunks.py [--json FILE]

Two arrays, as `label` makes them: soft labels [5, 25, 13, 13] with about five kept slots per picture, and a 13x13x1024
feature map of float16 noise behind a leaky ReLU. One shard is published and read back whole, as training reads, and at
64 single pictures in random order, as looking at a store does. Files stay in the page cache: this is the codecs' time.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import zarr

from data.store.create import codec_pipeline, create_store
from data.store.layout import FEATURES, SOFT_LABELS
from data.store.manifest import ManifestEntry, make_manifest
from data.store.publish import publish_shard
from data.store.reader import LabelStore
from data.store.rows import ShardRows
from data.store.schema import FmNmsAttributes, InputAttributes, RunAttributes, StoreAttributes, TeacherAttributes

KEPT_SLOTS = 5
TAP_SHAPE = (1024, 13, 13)
LABEL_CHUNKS = (1, 4, 16, 64, 256, 1024)
FEATURE_CHUNKS = (1, 2, 4, 16, 64)
LABEL_SHARD, FEATURE_SHARD = 1024, 64
SINGLE_READS = 64
REPEATS = 3


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. Times in ms per picture, the best of three; bytes of the shard file per picture."""

    array: str
    chunk: int
    write: float
    read_shard: float
    read_single: float
    bytes: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the table to this file")
    arguments = parser.parse_args()
    rows = []
    print(f"| {'array':11} | chunk | write ms | read shard ms | read single ms | bytes/picture |")
    print("|---|---|---|---|---|---|")
    for row in measurements():
        rows.append(asdict(row))
        print(
            f"| {row.array:11} | {row.chunk:5} | {row.write:8.3f} | {row.read_shard:13.4f} | {row.read_single:14.2f} "
            f"| {row.bytes:13.0f} |",
            flush=True,
        )
    machine = {"processor": processor(), "python": platform.python_version(), "zarr": zarr.__version__}
    result = json.dumps({"machine": machine, "rows": rows})
    print(result)
    if arguments.json:
        arguments.json.write_text(f"{result}\n")


def measurements() -> Iterator[Row]:
    """Every chunk size of both arrays, one store each."""
    for chunk in LABEL_CHUNKS:
        yield measured("soft labels", SOFT_LABELS, LABEL_SHARD, {}, chunk)
    for chunk in FEATURE_CHUNKS:
        yield measured("features", f"{FEATURES}/tap", FEATURE_SHARD, {"tap": TAP_SHAPE}, chunk)


def measured(label: str, array: str, shard_size: int, features: dict[str, tuple[int, int, int]], chunk: int) -> Row:
    """A new store of one shard, written, and read in two ways."""
    with tempfile.TemporaryDirectory() as folder:
        writes, reads, singles = [], [], []
        for repeat in range(REPEATS):
            store = make_store(Path(folder, f"{repeat}.store"), shard_size, features, chunk)
            rows = realistic_rows(store)
            writes.append(seconds(lambda s=store, r=rows: publish_shard(s, 0, r)))
            reads.append(seconds(lambda s=store: s.read_rows(array, 0, shard_size)))
            order = np.random.default_rng(0).integers(0, shard_size, SINGLE_READS).tolist()
            singles.append(seconds(lambda s=store, o=order: [s.read_rows(array, i, i + 1) for i in o]))
        size = next(entry[0] for file, entry in store.record(0).files.items() if file.startswith(array))
    ms = 1e3 / shard_size
    return Row(label, chunk, min(writes) * ms, min(reads) * ms, min(singles) * 1e3 / SINGLE_READS, size / shard_size)


def make_store(path: Path, shard_size: int, features: dict[str, tuple[int, int, int]], chunk: int) -> LabelStore:
    """An empty store of one shard for a VOC teacher at 416."""
    attributes = StoreAttributes(
        shard_size,
        "",
        TeacherAttributes("benchmark", "0" * 64, None, ((1.0, 1.0),) * 5, tuple(f"class {i}" for i in range(20))),
        InputAttributes(416, 416, "letterbox", "darknet", 0.5, "RGB"),
        FmNmsAttributes("local-max", 3, 0.01),
        RunAttributes("cpu", "float32", 1, 1, "contiguous", codec_pipeline(), {"zarr": zarr.__version__}),
    )
    manifest = make_manifest(ManifestEntry(f"pictures/{i:06d}.jpg", 0, "0" * 64) for i in range(shard_size))
    create_store(path, attributes, manifest, features, label_chunk=chunk, feature_chunk=chunk)
    return LabelStore.open(path)


def realistic_rows(store: LabelStore) -> ShardRows:
    """Soft labels with about five slots kept, features with a leaky ReLU's mostly small negative values."""
    random = np.random.default_rng(0)
    rows = store.pending_rows(0)
    for row in range(len(rows)):
        labels_AEHW = np.zeros(store.attributes.label_shape, np.float16)
        for _ in range(random.poisson(KEPT_SLOTS)):
            anchor, y, x = random.integers(5), random.integers(13), random.integers(13)
            geometry = [*random.random(2), *random.normal(0, 0.5, 2), random.random()]
            labels_AEHW[anchor, :, y, x] = [*geometry, *random.dirichlet(np.full(20, 0.05))]
        rows.label(row, labels_AEHW, 375, 500)
        for values in rows.features.values():
            noise = random.normal(size=values[row].shape)
            values[row] = np.where(noise > 0, noise, 0.1 * noise)
    return rows


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def processor() -> str:
    """The name the kernel gives it, and the cores this process may use."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {len(os.sched_getaffinity(0))} cores"


if __name__ == "__main__":
    main()
