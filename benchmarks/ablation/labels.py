"""Two rivals of a store's soft labels: hard pseudo-labels, and soft labels merged over several views."""

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import torch
from numpy.typing import NDArray

from ablation.pool import Pool
from data.boxes import Detections, cxcywh_to_xyxy
from data.images import read_picture
from data.pictures import find_pictures
from data.store.create import create_store
from data.store.publish import publish_shard
from data.store.reader import LabelStore
from data.views import View, place_boxes, render, resize_view
from pipeline.evaluate import EvaluationPicture, detect_all
from pipeline.label_plan import make_teacher
from pipeline.model_source import load_detector_source
from pipeline.store_roots import remember_roots
from stages.bench.detect import Predictor
from stages.device import resolve_device
from stages.label.fm_nms import filter_entries
from stages.label.teacher import Teacher
from stages.networks.region import BOX_ENTRIES, decode_entries
from stages.student.soft_targets import Grid, assign_slots

SCALES = (0.8, 1.0, 1.25)
SAME_OBJECT_IOU = 0.6
EDGE = 0.04
"""Of the input: at an edge that cuts the picture a box whose centre is closer than this is not believed."""


def write_pseudo_labels(pool: Pool, teacher: Path, threshold: float, folder: Path, device: str) -> None:
    """VOC XML: the truth of the pictures that have one, the teacher's boxes of at least this score for the others."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(pool.known, folder)
    source = load_detector_source(teacher)
    predictor = Predictor(
        source.detector,
        height=source.height,
        width=source.width,
        resize=source.resize,
        device=resolve_device(device),
    )
    items = [
        EvaluationPicture(picture.key, picture.path)
        for picture in find_pictures([str(pool.images)])
        if not (pool.known / f"{picture.path.stem}.xml").exists()
    ]
    found = detect_all(predictor, items, batch_size=16, threads=2, score_threshold=threshold)
    with closing(found):  # type: ignore[type-var]
        for item, (_, picture, boxes, _) in zip(items, found, strict=True):
            assert picture is not None, item.path
            _write_voc(folder / f"{item.path.stem}.xml", item.path.name, picture.shape, boxes, predictor.classes)


def _write_voc(file: Path, name: str, shape: tuple[int, ...], found: Detections, classes: tuple[str, ...]) -> None:
    root = ElementTree.Element("annotation")
    ElementTree.SubElement(root, "filename").text = name
    size = ElementTree.SubElement(root, "size")
    for side, value in zip(("width", "height", "depth"), (shape[1], shape[0], 3), strict=True):
        ElementTree.SubElement(size, side).text = str(value)
    for box, label in zip(found.boxes, found.labels, strict=True):
        node = ElementTree.SubElement(root, "object")
        ElementTree.SubElement(node, "name").text = classes[label]
        corners = ElementTree.SubElement(node, "bndbox")
        # VOC counts pixels from 1, and both corners are inside
        for edge, value in zip(("xmin", "ymin", "xmax", "ymax"), (box[0] + 1, box[1] + 1, box[2], box[3]), strict=True):
            ElementTree.SubElement(corners, edge).text = f"{value:.2f}"
    ElementTree.ElementTree(root).write(file, encoding="unicode")


def write_merged_store(pool: Pool, teacher: Path, like: Path, path: Path, device: str) -> None:
    """A store with the attributes of another, of labels merged over six views of every picture.

    A view is the teacher's own, scaled about its centre, and mirrored or not. Boxes of one class that overlap by more
    than SAME_OBJECT_IOU, at most one of each view, are one object; its objectness is the sum of theirs over the number
    of views that show its centre, its box and classes are their means, weighted by objectness.
    """
    shutil.rmtree(path, ignore_errors=True)
    model = LabelStore.open(like)
    create_store(path, model.attributes, model.manifest, {})
    store = LabelStore.open(path)
    live = make_teacher(load_detector_source(teacher), store.attributes, resolve_device(device), ())
    files = {picture.key: picture.path for picture in find_pictures([str(pool.images)])}
    for shard in store.pending_shards():
        rows = store.pending_rows(shard)
        for i, key in enumerate(rows.keys):
            picture = read_picture(files[key]).pixels
            rows.label(i, merged_labels(picture, live, store), *picture.shape[:2])
        publish_shard(store, shard, rows)
    remember_roots(path, {pool.images.name: pool.images})


def merged_labels(picture: NDArray[np.uint8], teacher: Teacher, store: LabelStore) -> NDArray[np.float16]:
    """Soft labels of one picture, float16 [A, 5+K, H, W], after FM-NMS as the store's attributes say."""
    geometry, anchors = store.attributes.input, np.array(teacher.anchors)
    base = resize_view(geometry.resize, *picture.shape[:2], geometry.height, geometry.width)
    views = list(_views(base))
    inputs_B3HW = torch.from_numpy(np.stack([render(picture, view) for view in views]))
    with torch.inference_mode():
        raw_BCHW = teacher.network(inputs_B3HW.to(teacher.device, memory_format=teacher.memory_format))
    entries_BAEHW = teacher.entries(raw_BCHW).float().cpu()
    boxes_BAHW4 = decode_entries(entries_BAEHW, torch.from_numpy(anchors).float())
    objectness_BAHW = entries_BAEHW[:, :, BOX_ENTRIES - 1]
    seen_BAHW = objectness_BAHW >= store.attributes.fm_nms.min_objectness
    view_N, *_ = seen_BAHW.nonzero(as_tuple=True)
    boxes_N4 = cxcywh_to_xyxy(boxes_BAHW4[seen_BAHW].double().numpy()) * np.array([base.width, base.height] * 2)
    pixels_N4 = np.concatenate(
        [view.unmap_xyxy(boxes_N4[(view_N == i).numpy()]) for i, view in enumerate(views)] or [np.zeros((0, 4))]
    )
    classes_NK = entries_BAEHW[:, :, BOX_ENTRIES:].permute(0, 1, 3, 4, 2)[seen_BAHW].double().numpy()
    objectness_N = objectness_BAHW[seen_BAHW].double().numpy()
    boxes, objectness, classes = _merge(pixels_N4, objectness_N, classes_NK, view_N.numpy(), views, base)

    cxcywh, shown = place_boxes(boxes, base, *picture.shape[:2])
    shape = store.attributes.label_shape
    slots, xywh = assign_slots(cxcywh[shown], Grid(teacher.anchors, shape[2], shape[3]))
    dense = np.zeros(shape, np.float32)
    values = np.concatenate([xywh, objectness[shown, None], classes[shown]], axis=1)
    for row in np.argsort(objectness[shown], kind="stable"):  # the highest objectness is written last
        dense[slots[row, 0], :, slots[row, 1], slots[row, 2]] = values[row]
    entries = torch.from_numpy(dense).to(torch.float16)[None]
    kept = filter_entries(entries, torch.tensor(teacher.anchors), store.attributes.fm_nms)
    return np.asarray(kept[0].numpy(), np.float16)


def _views(base: View) -> Iterator[View]:
    for scale in SCALES:
        zoomed = View(
            base.scale_x * scale,
            base.scale_y * scale,
            base.shift_x * scale + (1 - scale) * base.width / 2,
            base.shift_y * scale + (1 - scale) * base.height / 2,
            base.height,
            base.width,
        )
        yield zoomed
        yield zoomed.mirrored()


def _merge(
    boxes: NDArray[np.float64],
    objectness: NDArray[np.float64],
    classes: NDArray[np.float64],
    of_view: NDArray[np.int64],
    views: list[View],
    base: View,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    visible = (
        np.stack([_shows(view, base, centre) for view in views]) if len(boxes) else np.zeros((len(views), 0), bool)
    )
    believed = visible[of_view, np.arange(len(boxes))]
    label = classes.argmax(axis=1) if len(boxes) else np.zeros(0, np.int64)
    free = believed.copy()
    merged: list[tuple[NDArray[np.float64], float, NDArray[np.float64]]] = []
    for lead in np.argsort(-objectness, kind="stable"):
        if not free[lead]:
            continue
        alike = np.flatnonzero(free & (label == label[lead]) & (_iou(boxes, boxes[lead]) >= SAME_OBJECT_IOU))
        alike = alike[np.argsort(-objectness[alike], kind="stable")]
        _, first = np.unique(of_view[alike], return_index=True)
        members = alike[first]
        free[alike] = False
        weight = objectness[members] / objectness[members].sum()
        shown = len({*np.flatnonzero(visible[:, lead]).tolist(), *of_view[members].tolist()})
        merged.append((weight @ boxes[members], float(objectness[members].sum() / shown), weight @ classes[members]))
    if not merged:
        return np.zeros((0, 4)), np.zeros(0), np.zeros((0, classes.shape[1]))
    return np.stack([m[0] for m in merged]), np.array([m[1] for m in merged]), np.stack([m[2] for m in merged])


def _shows(view: View, base: View, centre: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether a view shows boxes with these centres; one that is larger than the base cuts the picture at its edges."""
    if abs(view.scale_x) <= abs(base.scale_x):
        return np.ones(len(centre), bool)
    mapped = view.map_xyxy(np.concatenate([centre, centre], axis=1))[:, :2] / np.array([view.width, view.height])
    return np.asarray(((mapped > EDGE) & (mapped < 1 - EDGE)).all(axis=1))


def _iou(boxes: NDArray[np.float64], one: NDArray[np.float64]) -> NDArray[np.float64]:
    overlap = np.minimum(boxes[:, 2:], one[2:]) - np.maximum(boxes[:, :2], one[:2])
    shared = np.clip(overlap, 0, None).prod(axis=1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return np.asarray(shared / (area + (one[2:] - one[:2]).prod() - shared))
