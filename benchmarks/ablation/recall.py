"""What soft labels keep of the objects that are there: found at all, and how many times each."""

from pathlib import Path

import numpy as np

from ablation.pool import Pool
from data.annotations import read_annotations
from data.store.layout import IMAGE_SIZE, LABELLED
from data.store.reader import LabelStore
from data.store.slots import load_kept_slots
from pipeline.show_command import boxes_of
from stages.bench.voc_ap import pairwise_iou

CONFIDENT = 0.3
"""Objectness from which a slot counts."""
MATCHED = 0.5
"""IoU from which a slot of the right class has found an object."""


def measure_labels(pool: Pool, store_path: Path) -> dict[str, float]:
    """Of the objects of the store's annotated pictures that count: `found`, the share with a confident slot; `times`,
    such slots for each found object; `slots`, all that are kept, for each picture."""
    store = LabelStore.open(store_path)
    table = load_kept_slots(store)
    annotations = read_annotations(pool.annotations).bind(store.manifest.keys)
    objects = found = slots = confident = 0
    for row, key in enumerate(store.manifest.keys):
        if table.status[row] != LABELLED:
            continue
        height, width = (int(side) for side in store.read_rows(IMAGE_SIZE, row, row + 1)[0])
        slots += len(table.kept(row))
        truth = annotations.truth(key, height, width)
        if truth is None:
            continue
        counts = ~(truth.difficult | truth.crowd)
        seen = boxes_of(
            table.dense(row)[None].astype(np.float16), store, np.empty((height, width, 3), np.uint8), CONFIDENT
        )
        overlap = pairwise_iou(truth.boxes[counts], seen.boxes)
        right = (overlap >= MATCHED) & (truth.labels[counts][:, None] == seen.labels[None])
        objects += int(counts.sum())
        found += int(right.any(axis=1).sum())
        confident += int(right.sum())
    return {
        "found": found / objects,
        "times": confident / found,
        "slots": slots / int((table.status == LABELLED).sum()),
    }
