"""What one annotation file says of one picture, before any of it is judged."""

from typing import NamedTuple


class Object(NamedTuple):
    """box: xyxy with continuous edges, in pixels or relative to the picture as the format has it; may be nonsense."""

    box: tuple[float, float, float, float]
    name: str
    difficult: bool = False
    crowd: bool = False


class Record(NamedTuple):
    """name: the picture's path as the annotation has it. size: height, width it claims, if any. source: for errors."""

    name: str
    source: str
    size: tuple[float, float] | None
    objects: list[Object]
