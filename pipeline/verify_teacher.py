"""Does the live teacher still say what a store holds? A sample of pictures is labelled anew and compared."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
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
from pipeline.deviation import Deviation, feature_deviation, label_deviation, sum_up
from pipeline.label_plan import make_teacher
from pipeline.model_source import LoadedDetector
from pipeline.progress import Progress
from pipeline.store_roots import remembered_roots
from stages.device import resolve_device
from stages.label.teacher import Teacher


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
    unfiltered = replace(attributes, fm_nms=replace(attributes.fm_nms, mode="off", min_objectness=0.0))
    teacher = make_teacher(
        source, unfiltered, resolve_device(attributes.run.device if device == "auto" else device), tuple(store.features)
    )
    deviations: dict[str, list[Deviation]] = {}
    absent = []
    for row in rows:
        key = store.manifest.keys[row]
        content = _content(roots[root_label(key)] / relative_path(key) if root_label(key) in roots else None)
        if content is None or sha256_bytes(content) != store.manifest[row].digest:
            absent.append(key)
            continue
        for array, computed in _label(teacher, store, content).items():
            stored = store.read_rows(array, row, row + 1)[0]
            deviation = (
                label_deviation(key, stored, computed, attributes)
                if array == SOFT_LABELS
                else feature_deviation(array, key, stored, computed, attributes.run.precision)
            )
            deviations.setdefault(array, []).append(deviation)
        progress.advance()
    if not deviations:
        raise RequestError(
            f"none of {len(rows)} pictures of {store.path} is there as it was labelled (the first: {absent[0]}): give "
            "their folder with --images, or --sample 0 to compare only the teacher's files"
        )
    return Comparison(len(rows) - len(absent), tuple(absent), tuple(sum_up(each) for each in deviations.values()))


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
    """By array; the soft labels as the teacher gives them, before or after its FM-NMS."""
    geometry = store.attributes.input
    pixels = decode(content)
    rows, columns = pixels.shape[:2]
    view = resize_view(geometry.resize, rows, columns, geometry.height, geometry.width)
    output = teacher.label(torch.from_numpy(render(pixels, view))[None])
    features = {f"{FEATURES}/{tap}": value[0].to(torch.float16).numpy() for tap, value in output.features.items()}
    return {SOFT_LABELS: output.soft_labels[0].numpy(), **features}
