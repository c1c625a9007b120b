"""Does the live teacher still say what a store holds? A sample of pictures is labelled anew and compared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from data.errors import RequestError
from data.images import decode
from data.pictures import relative_path, resolve_roots, root_label
from data.store.canonical import sha256_bytes
from data.store.layout import FEATURES, IMAGE_STATUS, LABELLED, SOFT_LABELS
from data.store.reader import LabelStore
from data.views import render, resize_view
from pipeline.label_plan import make_teacher
from pipeline.model_source import LoadedDetector
from pipeline.progress import Progress
from pipeline.store_roots import remembered_roots
from stages.device import resolve_device
from stages.label.teacher import Teacher

KEPT_ALIKE = 0.995
"""Of the slots, that must be kept in both or in neither (docs/contracts.md, 1)."""

TOLERANCE: Mapping[str, float] = {"float32": 2e-3, "float16": 2e-2, "bfloat16": 1e-1}
"""Of a value, relative and absolute, by the precision of the store. float32: docs/contracts.md. The others: some
tens of roundings of the format (2⁻¹¹ and 2⁻⁸), as many as a network has layers to add them up."""

ENTRY_AXIS = 1


@dataclass(frozen=True, slots=True)
class Deviation:
    """How far one array is from the teacher.

    largest: |stored − computed| where both hold a value; key: of its picture. scale: the largest value. kept_alike:
    share of the slots kept in both or in neither, 1 for feature maps. agrees: within tolerance.
    """

    array: str
    largest: float
    key: str
    scale: float
    kept_alike: float
    agrees: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """pictures: how many were compared. absent: keys of the sample whose file is gone or changed."""

    pictures: int
    absent: tuple[str, ...]
    deviations: tuple[Deviation, ...]


def compare_with_teacher(
    store: LabelStore,
    source: LoadedDetector,
    *,
    sample: int,
    images: Sequence[str],
    device: str,
    progress: Progress,
) -> Comparison:
    """Label `sample` pictures of the store, drawn by its manifest, under its recorded settings.

    images: where the pictures are, if not where `label` left them. Raises RequestError where none can be compared or
    the teacher does not know the store's classes, StoreDamageError as reading does.
    """
    attributes = store.attributes
    if not set(attributes.teacher.classes) <= set(source.detector.classes):
        raise RequestError(
            f"{source.file} knows the classes {', '.join(source.detector.classes)}, {store.path} holds "
            f"{', '.join(attributes.teacher.classes)}. Give the teacher's --names"
        )
    rows = _draw(store, sample)
    roots = _roots(store, images)
    torch.set_num_threads(attributes.run.threads)
    teacher = make_teacher(
        source, attributes, resolve_device(attributes.run.device if device == "auto" else device), tuple(store.features)
    )
    tolerance = TOLERANCE[attributes.run.precision]
    worst: dict[str, list[Deviation]] = {}
    absent = []
    for row in rows:
        key = store.manifest.keys[row]
        content = _content(roots[root_label(key)] / relative_path(key) if root_label(key) in roots else None)
        if content is None or sha256_bytes(content) != store.manifest[row].digest:
            absent.append(key)
            continue
        for array, computed in _label(teacher, store, content).items():
            stored = store.read_rows(array, row, row + 1)[0]
            worst.setdefault(array, []).append(_deviation(array, key, stored, computed, tolerance))
        progress.advance()
    if not worst:
        raise RequestError(
            f"none of {len(rows)} pictures of {store.path} is there as it was labelled (the first: {absent[0]}): give "
            "their folder with --images, or --sample 0 to compare only the teacher's files"
        )
    return Comparison(len(rows) - len(absent), tuple(absent), tuple(_sum_up(each) for each in worst.values()))


def _draw(store: LabelStore, sample: int) -> list[int]:
    """Rows of labelled pictures, the same for one manifest, in order."""
    status = np.zeros(len(store), np.uint8)
    for shard in store.finished_shards():
        first, count = store.shard_range(shard)
        status[first : first + count] = store.read_rows(IMAGE_STATUS, first, first + count)
    labelled = np.flatnonzero(status == LABELLED)
    if not len(labelled):
        raise RequestError(f"{store.path} holds no labelled picture to compare with its teacher")
    seed = int(store.attributes.manifest_sha256[:16], 16)
    chosen = np.random.default_rng(seed).choice(labelled, min(sample, len(labelled)), replace=False)
    return sorted(int(row) for row in chosen)


def _roots(store: LabelStore, images: Sequence[str]) -> dict[str, Path]:
    if not images:
        return remembered_roots(store.place)
    return resolve_roots(store.root_labels, images)


def _content(path: Path | None) -> bytes | None:
    return path.read_bytes() if path is not None and path.exists() else None


def _label(teacher: Teacher, store: LabelStore, content: bytes) -> dict[str, NDArray[np.float16]]:
    geometry = store.attributes.input
    pixels = decode(content)
    rows, columns = pixels.shape[:2]
    view = resize_view(geometry.resize, rows, columns, geometry.height, geometry.width)
    output = teacher.label(torch.from_numpy(render(pixels, view))[None])
    features = {f"{FEATURES}/{tap}": value[0].to(torch.float16).numpy() for tap, value in output.features.items()}
    return {SOFT_LABELS: output.soft_labels[0].numpy(), **features}


def _deviation(
    array: str, key: str, stored: NDArray[np.float16], computed: NDArray[np.float16], tolerance: float
) -> Deviation:
    one, other = stored.astype(np.float64), computed.astype(np.float64)
    kept_alike = 1.0
    both = np.ones(one.shape, bool)
    if array == SOFT_LABELS:
        kept_one, kept_other = one.any(axis=ENTRY_AXIS), other.any(axis=ENTRY_AXIS)
        kept_alike = float((kept_one == kept_other).mean())
        both = np.broadcast_to(np.expand_dims(kept_one & kept_other, ENTRY_AXIS), one.shape)
    largest = float(np.abs(one - other)[both].max(initial=0.0))
    close = np.isclose(one, other, rtol=tolerance, atol=tolerance) | ~both
    return Deviation(array, largest, key, float(np.abs(one).max()), kept_alike, bool(close.all()))


def _sum_up(each: Sequence[Deviation]) -> Deviation:
    """One array over all pictures."""
    largest = max(each, key=lambda deviation: deviation.largest)
    scale = max(deviation.scale for deviation in each)
    kept_alike = sum(deviation.kept_alike for deviation in each) / len(each)
    agrees = all(deviation.agrees for deviation in each) and kept_alike >= KEPT_ALIKE
    return Deviation(largest.array, largest.largest, largest.key, scale, kept_alike, agrees)
