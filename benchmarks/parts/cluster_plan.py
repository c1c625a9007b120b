"""From a folder of pictures to an empty store: seconds and memory, for lists of a million."""

import hashlib
import multiprocessing
import resource
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from data.pictures import find_pictures
from data.store.create import codec_pipeline, create_store
from data.store.manifest import ManifestEntry, make_manifest, manifest_bytes
from data.store.reader import LabelStore
from data.store.schema import InputAttributes, RunAttributes, StoreAttributes, TeacherAttributes
from data.views import FILL
from parts.turns import Finding, spread
from pipeline.label_manifest import expected_manifest, hash_pictures, without_copies
from pipeline.label_plan import DEFAULT_FM_NMS, INTERPOLATION
from pipeline.progress import SilentProgress

IN_A_FOLDER = 1000
Seconds = dict[str, float]


def measure_plan(work: Path, files: int, entries: int) -> list[Finding]:
    """Each in a process of its own, whose peak memory is its own."""
    found = _alone(_find, work / "pictures", files)
    made = _alone(_make, work / "store", entries)
    opened = _alone(_open, work / "store", entries)
    many, listed = f"{files:,} files", f"{entries:,} entries"
    size = (work / "store" / "manifest.jsonl").stat().st_size / 1e6
    return [
        _seconds(f"finding {many}", found, "find", found["peak"]),
        _seconds(f"hashing {many} (empty ones)", found, "hash"),
        _seconds(f"comparing {many} with a store's list", found, "compare"),
        _seconds(f"a manifest of {listed}", made, "manifest"),
        _seconds(f"leaving copies out of {listed}", made, "copies"),
        _seconds(f"writing the empty store of {listed}", made, "create", made["peak"], f"; {size:.0f} MB on disk"),
        _seconds(f"opening the store of {listed}, as every worker does", opened, "open", opened["peak"]),
    ]


def _seconds(what: str, values: Seconds, name: str, peak: float | None = None, more: str = "") -> Finding:
    memory = "" if peak is None else f"peak memory of the process {peak:.0f} MB, {values['base']:.0f} of them its start"
    return Finding(what, "s", spread([values[name]]), details=memory + more)


def _alone(function: Callable[[Path, int], Seconds], path: Path, count: int) -> Seconds:
    context = multiprocessing.get_context("spawn")
    results: Any = context.SimpleQueue()
    process = context.Process(target=_report, args=(function, path, count, results))
    process.start()
    values: Seconds = results.get()
    process.join()
    return values


def _report(function: Callable[[Path, int], Seconds], path: Path, count: int, results: Any) -> None:
    base = _peak_mb()
    values = function(path, count)
    results.put(values | {"base": base, "peak": _peak_mb()})


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _timed(values: Seconds, name: str, function: Callable[[], Any]) -> Any:
    began = time.perf_counter()
    result = function()
    values[name] = time.perf_counter() - began
    return result


def _find(folder: Path, files: int) -> Seconds:
    for number in range(files):
        if number % IN_A_FOLDER == 0:
            (folder / f"{number // IN_A_FOLDER:04d}").mkdir(parents=True)
        (folder / f"{number // IN_A_FOLDER:04d}" / f"camera-{number:08d}.jpg").touch()
    values: Seconds = {}
    pictures = _timed(values, "find", lambda: find_pictures([str(folder)]))
    manifest = _timed(values, "hash", lambda: hash_pictures(pictures, 2, SilentProgress()))
    _timed(values, "compare", lambda: expected_manifest(pictures, manifest, 2))
    return values


def _make(path: Path, count: int) -> Seconds:
    values: Seconds = {}
    entries = (
        ManifestEntry(
            f"camera-archive/{number // 10_000:04d}/frame-{number:08d}.jpg",
            100_000 + number % 5000,
            hashlib.sha256(number.to_bytes(8, "little")).hexdigest(),
        )
        for number in range(count)
    )
    manifest = _timed(values, "manifest", lambda: make_manifest(entries))
    assert len(_timed(values, "copies", lambda: without_copies(manifest))) == count
    attributes = replace(plan_attributes(), shard_size=1024)
    _timed(values, "create", lambda: create_store(path, attributes, manifest, {}))
    assert (path / "manifest.jsonl").read_bytes() == manifest_bytes(manifest)
    return values


def _open(path: Path, count: int) -> Seconds:
    values: Seconds = {}
    store = _timed(values, "open", lambda: LabelStore.open(path))
    assert len(store) == count
    return values


def plan_attributes() -> StoreAttributes:
    """Of a store for 20 classes at 416×416."""
    return StoreAttributes(
        shard_size=1024,
        manifest_sha256="",
        teacher=TeacherAttributes("none", "0" * 64, None, ((1.0, 1.0),) * 5, tuple(map(str, range(20)))),
        input=InputAttributes(416, 416, "letterbox", INTERPOLATION, FILL, "RGB"),
        fm_nms=DEFAULT_FM_NMS,
        run=RunAttributes("cuda", "bfloat16", 64, 4, "channels_last", codec_pipeline(), {}),
    )
