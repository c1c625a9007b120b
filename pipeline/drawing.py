"""Boxes on pictures, and pictures beside each other, for people to look at."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pipeline.palette import Colour, class_colour, text_colour

Picture = NDArray[np.uint8]
_Rectangle = tuple[float, float, float, float]

_LEAST_SIDE = 480
_LARGEST_CELL = 960
_LABELS_SHARE = 0.1
_ELLIPSIS = "..."  # Pillow's built-in font has no single character for it
_PAPER, _INK = (250, 250, 250), (25, 25, 25)


@dataclass(frozen=True, slots=True)
class _Pen:
    """Sizes that suit a picture, in its pixels."""

    line: int
    margin: int
    font: ImageFont.FreeTypeFont

    @classmethod
    def for_picture(cls, height: int, width: int) -> "_Pen":
        side = math.sqrt(height * width)
        font = ImageFont.load_default(max(13, round(side / 40)))
        assert isinstance(font, ImageFont.FreeTypeFont)
        return cls(line=max(2, round(side / 160)), margin=max(2, round(side / 220)), font=font)

    def size(self, text: str) -> tuple[int, int]:
        """Width and height of the plate under a text; the height is the same for every text."""
        ascent, descent = self.font.getmetrics()
        return math.ceil(self.font.getlength(text)) + 2 * self.margin, ascent + descent + self.margin

    def write(self, draw: ImageDraw.ImageDraw, plate: _Rectangle, text: str, colour: Colour) -> None:
        middle = (plate[1] + plate[3]) / 2
        draw.text((plate[0] + self.margin, middle), text, fill=colour, font=self.font, anchor="lm")


def draw_boxes(
    picture: Picture,
    boxes: NDArray[np.floating],
    labels: NDArray[np.integer],
    scores: NDArray[np.floating] | None,
    classes: Sequence[str],
    caption: str | None = None,
) -> Picture:
    """A copy of a picture with boxes drawn on it, best scores on top and weak ones fainter.

    picture: uint8 [height, width, 3], RGB. boxes: [n, 4], xyxy in its pixels, in any place and order of corners.
    labels: [n], index into `classes`. scores: [n] in 0 to 1, or None for annotations. A label is left out where it
    would cover that of a better box, and once labels hide a tenth of the picture: of a crowd, the best are named. With
    a `caption`, a strip below holds it and the number of boxes per class. Pictures whose longer side is below 480
    pixels are enlarged by a whole factor, so that labels can be read. Returns uint8 [height', width', 3].
    """
    factor = max(1, -(-_LEAST_SIDE // max(picture.shape[:2])))
    image = Image.fromarray(picture).resize(
        (picture.shape[1] * factor, picture.shape[0] * factor), Image.Resampling.BICUBIC
    )
    pen = _Pen.for_picture(image.height, image.width)
    rectangles = [_inside(box * factor, image.width, image.height) for box in np.asarray(boxes, np.float64)]
    strength = np.ones(len(rectangles)) if scores is None else np.clip(np.asarray(scores, np.float64), 0, 1)
    best_first = np.argsort(-strength, kind="stable").tolist()

    layer = Image.new("RGBA", image.size)
    draw = ImageDraw.Draw(layer)
    for index in reversed(best_first):
        opacity = round(255 * (0.3 + 0.7 * strength[index]))
        _outline(draw, rectangles[index], pen, class_colour(int(labels[index])), opacity)
    image = Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")

    draw = ImageDraw.Draw(image)
    plates: list[_Rectangle] = []
    room = _LABELS_SHARE * image.width * image.height
    for index in best_first:
        text = classes[int(labels[index])] + ("" if scores is None else f" {float(scores[index]):.2f}")
        size = pen.size(text)
        plate = _free_place(rectangles[index], size, plates, image.width, image.height)
        if plate is not None and (room >= size[0] * size[1] or not plates):
            plates.append(plate)
            room -= size[0] * size[1]
            colour = class_colour(int(labels[index]))
            draw.rectangle((plate[0], plate[1], plate[2] - 1, plate[3] - 1), fill=colour)
            pen.write(draw, plate, text, text_colour(colour))
    if caption is not None:
        image = _with_strip(image, pen, caption, labels, classes)
    return np.asarray(image)


def side_by_side(pictures: Sequence[tuple[str, Picture]], columns: int | None = None) -> Picture:
    """A sheet of pictures (uint8 [height, width, 3], RGB), each under its caption, in rows from the left.

    columns: as many as there are pictures up to three, then about as many as rows. Pictures larger than 960 pixels are
    reduced. Raises ValueError without pictures. Returns uint8 [height, width, 3].
    """
    if not pictures:
        raise ValueError("A sheet needs at least one picture.")
    columns = columns or (len(pictures) if len(pictures) <= 3 else math.ceil(math.sqrt(len(pictures))))
    images = [(caption, Image.fromarray(picture)) for caption, picture in pictures]
    for _, image in images:
        image.thumbnail((_LARGEST_CELL, _LARGEST_CELL), Image.Resampling.LANCZOS)
    rows = [images[start : start + columns] for start in range(0, len(images), columns)]
    width, heights = max(image.width for _, image in images), [max(image.height for _, image in row) for row in rows]
    pen = _Pen.for_picture(max(*heights, _LEAST_SIDE), max(width, _LEAST_SIDE))
    gap, title = 4 * pen.margin, pen.size("")[1]
    sheet_size = len(rows[0]) * (width + gap) + gap, sum(heights) + len(rows) * (title + gap) + gap
    sheet = Image.new("RGB", sheet_size, _PAPER)
    draw = ImageDraw.Draw(sheet)
    top = gap
    for row, height in zip(rows, heights, strict=True):
        for column, (caption, image) in enumerate(row):
            left = gap + column * (width + gap)
            plate = (left - pen.margin, top, left + width, top + title)
            pen.write(draw, plate, _shortened(caption, pen, width), _INK)
            sheet.paste(image, (left, top + title))
        top += title + height + gap
    return np.asarray(sheet)


def _inside(box: NDArray[np.float64], width: int, height: int) -> _Rectangle:
    (left, right), (top, bottom) = sorted(box[[0, 2]].tolist()), sorted(box[[1, 3]].tolist())
    return (
        min(max(left, 0), width - 1),
        min(max(top, 0), height - 1),
        min(max(right, 1), width),
        min(max(bottom, 1), height),
    )


def _outline(draw: ImageDraw.ImageDraw, box: _Rectangle, pen: _Pen, colour: Colour, opacity: int) -> None:
    """A coloured line just inside the box, with a dark hair line on either side so that it shows on any ground."""
    left, top, right, bottom = (round(box[0]), round(box[1]), round(box[2]) - 1, round(box[3]) - 1)
    right, bottom = max(right, left), max(bottom, top)
    draw.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline=(0, 0, 0, opacity // 3), width=pen.line + 2)
    draw.rectangle((left, top, right, bottom), outline=(*colour, opacity), width=pen.line)


def _free_place(
    box: _Rectangle, size: tuple[int, int], taken: Sequence[_Rectangle], width: int, height: int
) -> _Rectangle | None:
    """The first place at the box that covers no other label and lies in the picture, as far as the label fits there."""
    for left, top in _places(box, size):
        inside = min(left, width - size[0]), top
        left = max(0, inside[0])
        plate = (left, top, left + size[0], top + size[1])
        if top >= 0 and plate[3] <= height and not any(_overlap(plate, other) for other in taken):
            return plate
    return None


def _places(box: _Rectangle, size: tuple[int, int]) -> Iterator[tuple[int, int]]:
    left, top, right, bottom = (round(edge) for edge in box)
    for x in (left, right - size[0]):
        yield x, top - size[1]
        yield x, top
    for x in (left, right - size[0]):
        yield x, bottom - size[1]
        yield x, bottom


def _overlap(a: _Rectangle, b: _Rectangle) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _with_strip(
    image: Image.Image, pen: _Pen, caption: str, labels: NDArray[np.integer], classes: Sequence[str]
) -> Image.Image:
    """The picture above a strip: a chip and a count for every class drawn, then the caption, over as many lines as
    needed."""
    counts = Counter(np.asarray(labels).tolist())
    entries: list[tuple[Colour | None, str]] = [
        (class_colour(index), f"{counts[index]} {classes[index]}") for index in sorted(counts)
    ]
    entries += [(None, caption)] if caption else []
    line, chip = pen.size("")[1] + pen.margin, pen.size("")[1] - 2 * pen.margin
    placed, x, y = [], pen.margin, image.height + pen.margin
    for colour, text in entries:
        chip_width = chip + pen.margin if colour else 0
        text = _shortened(text, pen, image.width - 4 * pen.margin - chip_width)
        needed = chip_width + pen.size(text)[0] + pen.margin
        if x > pen.margin and x + needed > image.width:
            x, y = pen.margin, y + line
        placed.append((x, y, colour, text))
        x += needed + 2 * pen.margin
    out = Image.new("RGB", (image.width, y + line), _PAPER)
    out.paste(image)
    draw = ImageDraw.Draw(out)
    for x, y, colour, text in placed:
        if colour:
            draw.rectangle((x + pen.margin, y + pen.margin, x + chip, y + chip), fill=colour)
            x += chip + pen.margin
        pen.write(draw, (x, y, x, y + line - pen.margin), text, _INK)
    return out


def _shortened(text: str, pen: _Pen, width: float) -> str:
    """The text, or as much of it as fits into a width, with an ellipsis."""
    if pen.font.getlength(text) <= width:
        return text
    while text and pen.font.getlength(text + _ELLIPSIS) > width:
        text = text[:-1]
    return text + _ELLIPSIS
