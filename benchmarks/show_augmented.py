"""Soft labels drawn back on augmented photographs, to be looked at: do the boxes sit on the objects?

    python benchmarks/show_augmented.py --out sheet.png [--store DIR] [--pictures 3] [--views 4] [--input-size 416]

Each row is one photograph: as the teacher saw it, then as a student sees it (flipped, cropped, scaled, recoloured),
with the boxes that are decoded from the very tensor the student learns from. With --store they are a teacher's; without
it the annotations of the repository's photographs, written into a teacher's slots as if it had found them exactly.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from data.annotations import read_annotations
from data.augment import AugmentConfig
from data.boxes import Truth, cxcywh_to_xyxy, xyxy_to_cxcywh
from data.images import read_picture
from data.picture_cache import PictureCache
from data.pictures import relative_path, root_label
from data.store.layout import LABELLED
from data.store.reader import LabelStore
from data.store.slots import SoftLabelTable, load_kept_slots
from data.views import letterbox_view
from pipeline.drawing import draw_boxes, side_by_side
from pipeline.input_size import check_input_size
from pipeline.picture_file import save_picture
from pipeline.store_roots import remembered_roots
from stages.networks.region import decode_entries
from stages.networks.yolov2 import DEFAULT_ANCHORS
from stages.student.samples import Sample, SampleSettings, StoredLabels, TrainingPicture, make_sample
from stages.student.soft_targets import Grid

BCCD = Path(__file__).resolve().parents[1] / "demo/bccd"
CLASSES = ("Platelets", "RBC", "WBC")
NO_AUGMENTATION = AugmentConfig(geometric=False, flip=0.0, photometric=False)
LEAST_OBJECTNESS = 0.2

Anchors = tuple[tuple[float, float], ...]


def as_if_found(
    truth: Truth, picture_height: int, picture_width: int, size: int, anchors: Anchors, classes: int
) -> SoftLabelTable:
    """A table of one picture whose teacher has found every annotated box exactly, objectness 1, class certain.

    The slot is the one that Darknet trains for the box: the cell of its centre, the anchor of the best size. Of two
    boxes in one slot the first stays.
    """
    cells = size // 32
    view = letterbox_view(picture_height, picture_width, size, size)
    dense = np.zeros((len(anchors), 5 + classes, cells, cells), np.float16)
    for box, label in zip(view.map_xyxy(truth.boxes), truth.labels, strict=True):
        x, y, w, h = (float(value) for value in xyxy_to_cxcywh(box) / 32)
        sizes = [min(w, aw) * min(h, ah) / (w * h + aw * ah - min(w, aw) * min(h, ah)) for aw, ah in anchors]
        anchor, row, column = int(np.argmax(sizes)), min(int(y), cells - 1), min(int(x), cells - 1)
        if dense[anchor, 4, row, column]:
            continue
        log_size = np.log([w / anchors[anchor][0], h / anchors[anchor][1]])
        dense[anchor, :5, row, column] = [x - column, y - row, *log_size, 1]
        dense[anchor, 5 + label, row, column] = 1
    anchor_row_column = np.argwhere(dense[:, 4]).astype(np.int16)
    entries = dense[anchor_row_column[:, 0], :, anchor_row_column[:, 1], anchor_row_column[:, 2]]
    offsets = np.array([0, len(entries)])
    status = np.array([LABELLED], np.uint8)
    return SoftLabelTable(offsets, anchor_row_column, entries, status, (len(anchors), 5 + classes, cells, cells))


def boxes_of(sample: Sample, anchors: Anchors) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]:
    """The kept slots of a sample's target: boxes [n, 4] xyxy in pixels of the input, labels [n], objectness [n]."""
    assert sample.teachers, sample.problem
    dense = sample.teachers[0].dense
    entries = torch.from_numpy(dense)[None]
    boxes = decode_entries(entries, torch.tensor(anchors))[0].reshape(-1, 4).numpy()
    objectness = dense[:, 4].reshape(-1)
    labels = dense[:, 5:].argmax(axis=1).reshape(-1)
    kept = np.flatnonzero(objectness)
    height, width = sample.picture.shape[1:]
    pixels = cxcywh_to_xyxy(boxes[kept]) * np.array([width, height, width, height], np.float32)
    return pixels, labels[kept], objectness[kept]


def from_annotations(count: int, size: int) -> tuple[list[TrainingPicture], tuple[str, ...], Anchors]:
    """The first photographs of the repository, their annotations taken for a teacher's answers."""
    paths = sorted((BCCD / "JPEGImages").glob("*.jpg"))
    keys = [f"JPEGImages/{path.name}" for path in paths]
    annotations = read_annotations(BCCD / "Annotations", "voc", CLASSES).bind(keys)
    chosen = [(key, path) for key, path in zip(keys, paths, strict=True) if annotations.labelled([key])][:count]
    items = []
    for key, path in chosen:
        file = read_picture(path)
        truth = annotations.truth(key, *file.pixels.shape[:2])
        assert truth is not None
        table = as_if_found(truth, file.pixels.shape[0], file.pixels.shape[1], size, DEFAULT_ANCHORS, len(CLASSES))
        grid = Grid(DEFAULT_ANCHORS, size // 32, size // 32)
        items.append(
            TrainingPicture(key, path, None, (StoredLabels(table, 0, file.digest, grid, "letterbox", size, size),))
        )
    return items, CLASSES, DEFAULT_ANCHORS


def from_store(path: Path, count: int) -> tuple[list[TrainingPicture], tuple[str, ...], Anchors]:
    """The first labelled pictures of a store, where its `label` command last found them."""
    store = LabelStore.open(path)
    table, attributes, roots = load_kept_slots(store), store.attributes, remembered_roots(path)
    grid = Grid(attributes.teacher.anchors, *attributes.label_shape[2:])
    place = attributes.input
    items = []
    for row in np.flatnonzero(table.status == LABELLED)[:count].tolist():
        key, digest = store.manifest.keys[row], store.manifest.digests[row].tobytes()
        stored = StoredLabels(table, row, digest, grid, place.resize, place.height, place.width)
        items.append(TrainingPicture(key, roots[root_label(key)] / relative_path(key), None, (stored,)))
    return items, attributes.teacher.classes, attributes.teacher.anchors


def sheet(
    items: list[TrainingPicture], classes: tuple[str, ...], anchors: Anchors, size: int, views: int
) -> NDArray[np.uint8]:
    """One row per picture: the teacher's view, then so many augmented ones."""

    def panel(item: TrainingPicture, augment: AugmentConfig, epoch: int) -> tuple[str, NDArray[np.uint8]]:
        settings = SampleSettings(anchors, len(classes), item.stored[0].resize, augment, 0)
        sample = make_sample(item, settings, PictureCache(0), epoch=epoch, height=size, width=size)
        boxes, labels, objectness = boxes_of(sample, anchors)
        pixels = np.rint(sample.picture.transpose(1, 2, 0) * 255).astype(np.uint8)
        seen = objectness >= LEAST_OBJECTNESS
        drawn = draw_boxes(pixels, boxes[seen], labels[seen], objectness[seen], classes)
        caption = f"epoch {epoch}: {int(seen.sum())} boxes" if augment.geometric else f"{item.path.name}"
        return caption, drawn

    panels = []
    for item in items:
        panels.append(panel(item, NO_AUGMENTATION, 0))
        panels += [panel(item, AugmentConfig(), epoch) for epoch in range(views)]
    return side_by_side(panels, columns=views + 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the PNG to write")
    parser.add_argument("--store", type=Path, help="a label store on this machine")
    parser.add_argument("--pictures", type=int, default=3)
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--input-size", type=int, default=416)
    arguments = parser.parse_args()
    size, count = arguments.input_size, arguments.pictures
    check_input_size(size)
    found = from_store(arguments.store, count) if arguments.store else from_annotations(count, size)
    save_picture(sheet(*found, size, arguments.views), arguments.out)
    print(arguments.out)


if __name__ == "__main__":
    main()
