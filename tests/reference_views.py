"""Slow, obvious second implementations for data/views.py."""

import math

import numpy as np
from numpy.typing import NDArray

from data.views import View


def render_by_loops(picture: NDArray[np.uint8], view: View) -> NDArray[np.float64]:
    """The formula of render(), one pixel at a time, in Python floats."""
    height, width = picture.shape[:2]
    output = np.full((3, view.height, view.width), 0.5)
    mirrored = view.scale_x < 0
    offset_x = view.width - view.shift_x if mirrored else view.shift_x
    for row in range(view.height):
        y = _index(row, view.shift_y, view.scale_y * height, height)
        for column in range(view.width):
            x = _index(view.width - 1 - column if mirrored else column, offset_x, abs(view.scale_x) * width, width)
            if x is not None and y is not None:
                output[:, row, column] = _bilinear(picture, x, y) / 255
    return output


def _index(output: int, offset: float, placed: float, size: int) -> float | None:
    if not offset <= output + 0.5 < offset + placed:
        return None
    if placed <= 1 + 1e-6:
        return size - 1.0
    return min(max((output - offset) * (size - 1) / (placed - 1), 0.0), size - 1.0)


def _bilinear(picture: NDArray[np.uint8], x: float, y: float) -> NDArray[np.float64]:
    x0, y0 = math.floor(x), math.floor(y)
    x1, y1 = min(x0 + 1, picture.shape[1] - 1), min(y0 + 1, picture.shape[0] - 1)
    p = picture.astype(np.float64)
    upper = p[y0, x0] * (1 - (x - x0)) + p[y0, x1] * (x - x0)
    lower = p[y1, x0] * (1 - (x - x0)) + p[y1, x1] * (x - x0)
    return np.asarray(upper * (1 - (y - y0)) + lower * (y - y0))


def darknet_letterbox(picture: NDArray[np.uint8], height: int, width: int) -> NDArray[np.float32]:
    """Darknet's letterbox in its own order and precision: columns first, then rows, all float32, then placed on .5."""
    h, w = picture.shape[:2]
    if width / w < height / h:
        new_w, new_h = width, h * width // w
    else:
        new_w, new_h = w * height // h, height
    image = picture.transpose(2, 0, 1).astype(np.float32) / np.float32(255)
    across = np.zeros((3, h, new_w), np.float32)
    step = np.float32((w - 1) / (new_w - 1))
    for c in range(new_w):
        if c == new_w - 1 or w == 1:
            across[:, :, c] = image[:, :, w - 1]
        else:
            x = np.float32(c) * step
            dx = x - np.float32(int(x))
            across[:, :, c] = (1 - dx) * image[:, :, int(x)] + dx * image[:, :, int(x) + 1]
    down = np.zeros((3, new_h, new_w), np.float32)
    step = np.float32((h - 1) / (new_h - 1))
    for r in range(new_h):
        y = np.float32(r) * step
        dy = y - np.float32(int(y))
        down[:, r] = (1 - dy) * across[:, int(y)]
        if r != new_h - 1 and h != 1:
            down[:, r] += dy * across[:, int(y) + 1]
    boxed = np.full((3, height, width), 0.5, np.float32)
    top, left = (height - new_h) // 2, (width - new_w) // 2
    boxed[:, top : top + new_h, left : left + new_w] = down
    return boxed
