"""Views: how a picture is placed into a network's input, and how pixels and boxes follow that placement.

A view is an axis-aligned affine map from the picture's pixels to the input's. Letterbox, stretch, crops, zooms and
mirrors are all views; one renderer draws every one of them, so a box and the pixels under it can't drift apart.
"""

from dataclasses import dataclass
from math import ceil, isfinite
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from data.boxes import xyxy_to_cxcywh

Resize = Literal["letterbox", "stretch"]

FILL = 0.5
"""What lies outside the picture, as in Darknet."""

SMALLEST_SIDE = 0.001
"""A box narrower or lower than this share of the input is dropped, as in Darknet."""

_SHIFT_GRID = 2.0**20
_ROUNDING = 1e-6

# Rows are rendered in bands: temporaries of this size come from the heap again and again, larger ones from the system
# with a page fault each 4 kB (three times slower), and far smaller ones make threads queue for the interpreter lock.
_BAND_BYTES = 400_000


@dataclass(frozen=True, slots=True)
class View:
    """x_input = scale_x * x_picture + shift_x in continuous pixels, and the same for y.

    scale_x is negative when the view is mirrored; scale_y never is. height, width: the network's input in pixels.
    The shifts are rounded to 2**-20 pixel, so that mirroring twice gives the same view back exactly.
    Raises ValueError for a scale of zero, a mirrored y, a value that is not finite, or an empty input.
    """

    scale_x: float
    scale_y: float
    shift_x: float
    shift_y: float
    height: int
    width: int

    def __post_init__(self) -> None:
        if not all(isfinite(value) for value in (self.scale_x, self.scale_y, self.shift_x, self.shift_y)):
            raise ValueError(f"a view has finite scales and shifts, not {self!r}")
        if self.scale_x == 0 or self.scale_y <= 0 or self.height < 1 or self.width < 1:
            raise ValueError(f"a view has scale_x != 0, scale_y > 0 and an input of at least 1×1, not {self!r}")
        object.__setattr__(self, "shift_x", round(self.shift_x * _SHIFT_GRID) / _SHIFT_GRID)
        object.__setattr__(self, "shift_y", round(self.shift_y * _SHIFT_GRID) / _SHIFT_GRID)

    def mirrored(self) -> "View":
        """The view whose rendering is this one's, flipped left to right."""
        return View(-self.scale_x, self.scale_y, self.width - self.shift_x, self.shift_y, self.height, self.width)

    def map_xyxy(self, boxes: NDArray[np.floating]) -> NDArray[np.float64]:
        """Boxes [..., 4], xyxy in pixels of the picture, to xyxy in pixels of the input. Left stays below right."""
        scale, shift = self._scale_and_shift()
        return _left_to_right(boxes * scale + shift, self.scale_x)

    def unmap_xyxy(self, boxes: NDArray[np.floating]) -> NDArray[np.float64]:
        """The inverse of map_xyxy."""
        scale, shift = self._scale_and_shift()
        return _left_to_right((boxes - shift) / scale, self.scale_x)

    def _scale_and_shift(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        scale = np.array([self.scale_x, self.scale_y, self.scale_x, self.scale_y], np.float64)
        return scale, np.array([self.shift_x, self.shift_y, self.shift_x, self.shift_y], np.float64)


def _left_to_right(boxes: NDArray[np.float64], scale_x: float) -> NDArray[np.float64]:
    return boxes[..., [2, 1, 0, 3]] if scale_x < 0 else boxes


def letterbox_view(picture_height: int, picture_width: int, height: int, width: int) -> View:
    """The whole picture with its proportions kept, centred. Darknet image.c, letterbox_image.

    New sizes by integer division (at least 1, which Darknet does not guard) and an integer offset, rounded down.
    """
    if width * picture_height < height * picture_width:
        new_height, new_width = max(picture_height * width // picture_width, 1), width
    else:
        new_height, new_width = height, max(picture_width * height // picture_height, 1)
    return View(
        scale_x=new_width / picture_width,
        scale_y=new_height / picture_height,
        shift_x=(width - new_width) // 2,
        shift_y=(height - new_height) // 2,
        height=height,
        width=width,
    )


def stretch_view(picture_height: int, picture_width: int, height: int, width: int) -> View:
    """The whole picture over the whole input, proportions not kept."""
    return View(width / picture_width, height / picture_height, 0.0, 0.0, height, width)


def resize_view(resize: Resize, picture_height: int, picture_width: int, height: int, width: int) -> View:
    """The view that a store's `resize` setting names."""
    make = letterbox_view if resize == "letterbox" else stretch_view
    return make(picture_height, picture_width, height, width)


def render(picture: NDArray[np.uint8], view: View) -> NDArray[np.float32]:
    """The network's input: uint8 [h, w, 3] to float32 [3, view.height, view.width] in [0, 1], channels as they came.

    Bilinear with aligned corners, as Darknet's resize_image: a picture of width w placed on n = |scale_x|·w columns
    from offset o on has at column c the picture's index (c − o)·(w − 1)/(n − 1). This holds here for n and o that are
    not whole as well; columns whose centre lies outside the picture are 0.5. A mirrored view is the flipped rendering
    of its counterpart, bit for bit. Arithmetic is float32, positions float64. Only the part of the picture that the
    view shows is read. Releases the interpreter lock in all steps that cost time.
    """
    height, width = picture.shape[:2]
    shift_x = view.shift_x if view.scale_x > 0 else view.width - view.shift_x
    columns = _sample_positions(width, abs(view.scale_x) * width, shift_x, view.width)
    rows = _sample_positions(height, view.scale_y * height, view.shift_y, view.height)
    output = np.full((3, view.height, view.width), FILL, np.float32)
    if not columns.count or not rows.count:
        return output

    left, right = columns.low[0], columns.high[-1] + 1
    channels = np.arange(3)[:, None]
    low, high = ((index - left) * 3 + channels for index in (columns.low, columns.high))
    weight, first = columns.weight, columns.first
    if view.scale_x < 0:
        low, high, weight = low[:, ::-1], high[:, ::-1], weight[::-1]
        first = view.width - columns.first - columns.count
    low, high, weight = low.ravel(), high.ravel(), np.tile(weight, 3)

    band = max(_BAND_BYTES // (12 * max(right - left, columns.count)), 1)
    for start in range(0, rows.count, band):
        above, below = rows.low[start : start + band], rows.high[start : start + band]
        top, bottom = above[0], below[-1] + 1
        window = picture[top:bottom, left:right].reshape(bottom - top, -1)
        lines = _blend(window, above - top, below - top, rows.weight[start : start + band, None], axis=0)
        pixels = _blend(lines, low, high, weight, axis=1).reshape(-1, 3, columns.count).transpose(1, 0, 2)
        row = rows.first + start
        covered = output[:, row : row + len(above), first : first + columns.count]
        np.divide(pixels, 255, out=covered)
    return output


@dataclass(frozen=True, slots=True)
class _Positions:
    """Where the covered outputs first … first + count − 1 sample: between indices low and high, at weight of high."""

    first: int
    low: NDArray[np.intp]
    high: NDArray[np.intp]
    weight: NDArray[np.float32]

    @property
    def count(self) -> int:
        return len(self.low)


def _sample_positions(source_size: int, placed_size: float, offset: float, output_size: int) -> _Positions:
    first = max(ceil(offset - 0.5), 0)
    end = min(ceil(offset + placed_size - 0.5), output_size)
    output = np.arange(first, max(end, first), dtype=np.float64)
    last = source_size - 1
    if placed_size > 1 + _ROUNDING:
        position = np.clip((output - offset) * (last / (placed_size - 1)), 0, last)
        # Rounding noise must not turn a sample on a pixel into a blend of two: that could exceed the brighter one.
        nearest = np.rint(position)
        position = np.where(np.abs(position - nearest) < _ROUNDING, nearest, position)
    else:
        position = np.full_like(output, last)  # a single column is Darknet's last
    low = position.astype(np.intp)
    return _Positions(first, low, np.minimum(low + 1, last), (position - low).astype(np.float32))


def _blend(
    lines: NDArray[np.uint8] | NDArray[np.float32],
    low: NDArray[np.intp],
    high: NDArray[np.intp],
    weight: NDArray[np.float32],
    axis: int,
) -> NDArray[np.float32]:
    # mode="clip" spares take() a buffered copy; every index is in range
    below = lines.take(low, axis=axis, mode="clip").astype(np.float32, copy=False)
    above = lines.take(high, axis=axis, mode="clip").astype(np.float32, copy=False)
    above -= below
    above *= weight
    below += above
    return below


def place_boxes(
    boxes: NDArray[np.floating], view: View, picture_height: int, picture_width: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Where boxes lie in a view: (cxcywh relative to the input, float64 [n, 4]; keep, bool [n]).

    boxes: [n, 4], xyxy in pixels of the picture; they may reach beyond it, as a detector's do. A box is clipped only at
    the input's edges that cut the picture, then its centre is computed anew. keep is False where width or height is
    below 0.001 of the input or the centre lies outside it; such rows are not to be used.
    """
    mapped = view.map_xyxy(np.asarray(boxes, np.float64).reshape(-1, 4))
    size = np.array([view.width, view.height], np.float64)
    picture = view.map_xyxy(np.array([0, 0, picture_width, picture_height], np.float64))
    lowest = np.where(picture[:2] < -_ROUNDING, 0.0, -np.inf)
    highest = np.where(picture[2:] > size + _ROUNDING, size, np.inf)
    corners = np.clip(mapped.reshape(-1, 2, 2), lowest, highest).reshape(-1, 4)
    placed = np.asarray(xyxy_to_cxcywh(corners / np.tile(size, 2)), np.float64)
    centre, side = placed[:, :2], placed[:, 2:]
    keep = (side >= SMALLEST_SIDE) & (centre >= 0) & (centre <= 1)
    return placed, np.all(keep, axis=1)
