"""A slow, obvious twin of stages/student/region_loss.py: Darknet's deltas, one number at a time, as
`forward_region_layer` describes them: write every slot's background first, then let each truth overwrite its slot."""

from collections.abc import Sequence

import numpy as np

from stages.student.region_loss import RegionLossConfig
from tests.reference_region import activate_slowly, decode_slowly

Truths = Sequence[tuple[tuple[float, float, float, float], int]]


def overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """IoU of two boxes, centre and size."""
    shared = 1.0
    for centre, size in ((0, 2), (1, 3)):
        high = min(a[centre] + a[size] / 2, b[centre] + b[size] / 2)
        low = max(a[centre] - a[size] / 2, b[centre] - b[size] / 2)
        shared *= max(high - low, 0.0)
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)


def region_deltas_slowly(
    raw: np.ndarray,
    truths: Truths,
    anchors: Sequence[tuple[float, float]],
    config: RegionLossConfig,
    prior_box: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """One labelled picture's raw output [A*(5+K), H, W] to its deltas (negative gradients with respect to raw), of the
    same shape, and the name of the term that each comes from ("" for none)."""
    channels, rows, columns = raw.shape
    classes = channels // len(anchors) - 5
    out = activate_slowly(raw, len(anchors), classes)
    boxes = decode_slowly(out, list(anchors))
    delta = np.zeros_like(out)
    term = np.full(out.shape, "", dtype=object)

    def assign(n: int, entry: int, row: int, column: int, value: float, name: str) -> None:
        o = out[n, entry, row, column]
        slope = o * (1 - o) if entry in (0, 1, 4) else 1.0
        delta[n, entry, row, column] = value * slope
        term[n, entry, row, column] = name

    def assign_box(n: int, row: int, column: int, target: Sequence[float], scale: float, name: str) -> None:
        for entry in range(4):
            assign(n, entry, row, column, scale * (target[entry] - out[n, entry, row, column]), name)

    for n in range(len(anchors)):
        for row in range(rows):
            for column in range(columns):
                best = max((overlap(boxes[n, row, column], box) for box, _ in truths), default=0.0)
                if best > config.ignore_iou:
                    assign(n, 4, row, column, 0.0, "")
                else:
                    o = out[n, 4, row, column]
                    assign(n, 4, row, column, config.noobject_scale * (0 - o), "no_object")
                if prior_box:
                    assign_box(n, row, column, (0.5, 0.5, 0.0, 0.0), config.prior_scale, "prior_box")

    for (x, y, w, h), label in truths:
        column, row = min(int(x * columns), columns - 1), min(int(y * rows), rows - 1)
        fits = [overlap((0, 0, w, h), (0, 0, aw / columns, ah / rows)) for aw, ah in anchors]
        n = fits.index(max(fits))
        iou = overlap(boxes[n, row, column], (x, y, w, h))
        target = (
            x * columns - column,
            y * rows - row,
            np.log(w * columns / anchors[n][0]),
            np.log(h * rows / anchors[n][1]),
        )
        assign_box(n, row, column, target, config.coord_scale * (2 - w * h), "box")
        wanted = iou if config.rescore else 1.0
        assign(n, 4, row, column, config.object_scale * (wanted - out[n, 4, row, column]), "object")
        for k in range(classes):
            value = config.class_scale * (float(k == label) - out[n, 5 + k, row, column])
            assign(n, 5 + k, row, column, value, "class")
    return delta.reshape(raw.shape), term.reshape(raw.shape)
