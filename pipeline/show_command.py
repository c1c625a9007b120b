"""`distill show`: what a store holds, drawn on its pictures; or how a training went, as curves."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from data.boxes import Detections, cxcywh_to_xyxy
from data.errors import RequestError
from data.images import RejectedPictureError, read_picture
from data.pictures import relative_path, resolve_roots, root_label
from data.store.layout import IMAGE_STATUS, LABELLED, SOFT_LABELS
from data.store.place import Address
from data.store.reader import LabelStore
from data.views import render, resize_view
from pipeline.charts import plot_run
from pipeline.drawing import draw_boxes, side_by_side
from pipeline.label_plan import make_teacher
from pipeline.model_source import load_detector_source
from pipeline.picture_file import check_picture_path, save_picture
from pipeline.run_folder import RunFolder
from pipeline.store_roots import remembered_roots
from stages.device import resolve_device
from stages.label.teacher import Teacher
from stages.networks.region import decode_entries


def run_show(
    what: Address,
    out: Path,
    *,
    images: Sequence[str],
    keys: Sequence[str],
    count: int,
    teacher: Path | None,
    cfg: Path | None,
    names: Path | None,
    min_objectness: float,
) -> str:
    """Draw a run's curves or a store's soft labels into `out`; returns a line that says what is to be seen."""
    check_picture_path(out)
    if isinstance(what, Path) and (what / "run.json").exists():
        rows = RunFolder.open(what).metrics()
        if not rows:
            raise RequestError(f"{what} has not finished an epoch yet; there is nothing to show")
        plot_run(rows, out, what.resolve().name)
        return f"{out}: {len(rows)} epochs of {what}"
    store = LabelStore.open(what)
    roots = _roots(store, images)
    shown = _choose(store, keys, count)
    unfiltered = None
    if teacher is not None:
        source = load_detector_source(teacher, cfg, names)
        if source.weights_sha256 != store.attributes.teacher.weights_sha256:
            raise RequestError(f"{teacher} is not the teacher of {what}; give the weights it was labelled with")
        everything = replace(store.attributes, fm_nms=replace(store.attributes.fm_nms, mode="off"))
        unfiltered = make_teacher(source, everything, resolve_device(store.attributes.run.device), ())
    panels = []
    for row in shown:
        key = store.manifest.keys[row]
        picture = _read(store, row, roots)
        stored = store.read_rows(SOFT_LABELS, row, row + 1)
        classes = store.attributes.teacher.classes
        if unfiltered is not None:
            before = boxes_of(_label_again(unfiltered, store, picture), store, picture, min_objectness)
            drawn = draw_boxes(picture, before.boxes, before.labels, before.scores, classes)
            panels.append((f"{key}: {len(before)} slots before FM-NMS", drawn))
        kept = boxes_of(stored, store, picture, min_objectness)
        mode = store.attributes.fm_nms.mode
        drawn = draw_boxes(picture, kept.boxes, kept.labels, kept.scores, classes)
        panels.append((f"{key}: {len(kept)} slots stored (FM-NMS {mode})", drawn))
    save_picture(side_by_side(panels, columns=2 if unfiltered is not None else None), out)
    return f"{out}: {len(shown)} pictures of {what}, slots with objectness of {min_objectness} or more"


def boxes_of(
    labels_1AEHW: NDArray[np.float16], store: LabelStore, picture: NDArray[np.uint8], min_objectness: float
) -> Detections:
    """The slots of one picture's soft labels as boxes in its pixels, scored by objectness alone."""
    entries = torch.from_numpy(labels_1AEHW.astype(np.float32))
    boxes = decode_entries(entries, torch.tensor(store.attributes.teacher.anchors))[0].reshape(-1, 4).numpy()
    objectness = entries[0, :, 4].reshape(-1).numpy()
    labels = entries[0, :, 5:].argmax(dim=1).reshape(-1).numpy()
    chosen = np.flatnonzero(objectness >= max(min_objectness, np.finfo(np.float32).tiny))
    chosen = chosen[np.argsort(-objectness[chosen], kind="stable")]
    geometry = store.attributes.input
    rows, columns = picture.shape[:2]
    view = resize_view(geometry.resize, rows, columns, geometry.height, geometry.width)
    pixels = cxcywh_to_xyxy(boxes[chosen]) * np.array([geometry.width, geometry.height] * 2)
    return Detections(view.unmap_xyxy(pixels).astype(np.float32), objectness[chosen], labels[chosen])


def _label_again(teacher: Teacher, store: LabelStore, picture: NDArray[np.uint8]) -> NDArray[np.float16]:
    geometry = store.attributes.input
    rows, columns = picture.shape[:2]
    view = resize_view(geometry.resize, rows, columns, geometry.height, geometry.width)
    output = teacher.label(torch.from_numpy(render(picture, view))[None])
    labels: NDArray[np.float16] = output.soft_labels.numpy()
    return labels


def _roots(store: LabelStore, images: Sequence[str]) -> dict[str, Path]:
    labels = store.root_labels
    roots = resolve_roots(labels, images) if images else remembered_roots(store.place)
    if labels - roots.keys():
        raise RequestError(f"where the pictures of {store.path} are is not known; give their folder with --images")
    return roots


def _read(store: LabelStore, row: int, roots: Mapping[str, Path]) -> NDArray[np.uint8]:
    """The picture as it was labelled; RequestError where the file is another one now."""
    key = store.manifest.keys[row]
    path = roots[root_label(key)] / relative_path(key)
    changed = RequestError(f"{path} has changed since {store.path} was made; its soft labels belong to the old picture")
    try:
        file = read_picture(path)
    except RejectedPictureError as error:
        raise changed from error
    if file.digest != store.manifest.digests[row].tobytes():
        raise changed
    return file.pixels


def _choose(store: LabelStore, keys: Sequence[str], count: int) -> list[int]:
    rows = {key: row for row, key in enumerate(store.manifest.keys) if key}
    unknown = [key for key in keys if key not in rows]
    if unknown:
        raise RequestError(f"--key {unknown[0]} is not in {store.path}; its keys look like {store.manifest.keys[0]}")
    for key in keys:
        if store.read_rows(IMAGE_STATUS, rows[key], rows[key] + 1)[0] != LABELLED:
            raise RequestError(f"--key {key} was rejected when {store.path} was made; there is nothing to show of it")
    if keys:
        return [rows[key] for key in keys]
    labelled: list[int] = []
    for shard in store.finished_shards():
        first, _ = store.shard_range(shard)
        status = store.read_shard(shard, features=()).status
        labelled += [first + int(i) for i in np.flatnonzero(status == LABELLED)]
        if len(labelled) >= count:
            break
    if not labelled:
        raise RequestError(f"{store.path} has no labelled picture yet; complete it with the command that made it")
    return labelled[:count]
