"""A slow, obvious twin of stages/networks/region.py, with loops, from Darknet's region_layer.c."""

import math

import numpy as np


def logistic(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def activate_slowly(raw: np.ndarray, anchors: int, classes: int) -> np.ndarray:
    """raw [A*(5+K), H, W] to entries [A, 5+K, H, W], one number at a time."""
    _, rows, columns = raw.shape
    entries = np.zeros((anchors, 5 + classes, rows, columns))
    for n in range(anchors):
        for row in range(rows):
            for column in range(columns):
                values = [float(raw[n * (5 + classes) + e, row, column]) for e in range(5 + classes)]
                largest = max(values[5:])
                total = sum(math.exp(v - largest) for v in values[5:])
                entries[n, 0, row, column] = logistic(values[0])
                entries[n, 1, row, column] = logistic(values[1])
                entries[n, 2, row, column] = values[2]
                entries[n, 3, row, column] = values[3]
                entries[n, 4, row, column] = logistic(values[4])
                for k in range(classes):
                    entries[n, 5 + k, row, column] = math.exp(values[5 + k] - largest) / total
    return entries


def decode_slowly(entries: np.ndarray, anchors: list[tuple[float, float]]) -> np.ndarray:
    """entries [A, 5+K, H, W] to boxes [A, H, W, 4], centre and size relative to the input."""
    count, _, rows, columns = entries.shape
    boxes = np.zeros((count, rows, columns, 4))
    for n in range(count):
        for row in range(rows):
            for column in range(columns):
                x, y, w, h = entries[n, :4, row, column]
                boxes[n, row, column, 0] = (column + x) / columns
                boxes[n, row, column, 1] = (row + y) / rows
                boxes[n, row, column, 2] = math.exp(w) * anchors[n][0] / columns
                boxes[n, row, column, 3] = math.exp(h) * anchors[n][1] / rows
    return boxes
