"""The annotations of a data set, in columns: small in memory, and judged against the size a picture really has."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from data.annotations.record import Object, Record
from data.boxes import Truth
from data.errors import RequestError
from data.matching import Matcher


@dataclass(frozen=True, slots=True)
class AnnotationReport:
    """What was found, judged by the sizes that the annotations claim (the pictures' own may differ).

    pictures: annotated ones; empty: those without any object. boxes: kept ones, per_class of the same.
    difficult, crowd, clipped: how many of those are flagged so, or lost more than 1 % of their area beyond the picture.
    degenerate: dropped for having no width or height, or no finite corners. outside: dropped for lying wholly beyond
    the picture. other_classes: left out because their class is not in the list.
    """

    pictures: int
    empty: int
    boxes: int
    per_class: dict[str, int]
    difficult: int
    crowd: int
    clipped: int
    degenerate: int
    outside: int
    other_classes: int

    def summary(self) -> str:
        """One line for people; what did not occur is not mentioned."""
        classes = ", ".join(f"{name} {count:,}" for name, count in self.per_class.items())
        notes = {
            "difficult": self.difficult,
            "crowd": self.crowd,
            "clipped to the picture": self.clipped,
            "degenerate, dropped": self.degenerate,
            "outside the picture, dropped": self.outside,
            "of other classes, left out": self.other_classes,
        }
        parts = [
            f"{self.pictures:,} annotated pictures ({self.empty:,} without objects)",
            f"{self.boxes:,} boxes ({classes})",
            *(f"{count:,} {what}" for what, count in notes.items() if count),
        ]
        return "; ".join(parts)


@dataclass(frozen=True, slots=True)
class AnnotationSet:
    """All annotations of a data set.

    classes: names, in the order of the labels. report: what was found. names: the annotated pictures' paths as the
    annotations have them. Pictures are found by their keys (data/pictures.py) as data/matching.py says.
    """

    classes: tuple[str, ...]
    report: AnnotationReport
    names: tuple[str, ...]
    _columns: "_Columns" = field(repr=False)
    _matcher: Matcher = field(repr=False)
    _rows: dict[str, int] | None = field(default=None, repr=False)

    def bind(self, keys: Iterable[str]) -> "AnnotationSet":
        """The same set for these pictures alone: which annotation is whose is settled among them, once.

        Raises RequestError where two pictures have an equal claim to one annotation, or one picture to two.
        """
        return replace(self, _rows=self._matcher.match(keys))

    def truth(self, key: str, height: int, width: int) -> Truth | None:
        """The objects of a picture, given its decoded size; None if nobody annotated it (which is not "empty").

        Boxes are clipped to the picture; degenerate ones and those wholly outside are dropped.
        Raises RequestError if the picture has several annotations.
        """
        rows = self._matcher.match([key]) if self._rows is None else self._rows
        if key not in rows:
            return None
        columns, row = self._columns, rows[key]
        part = slice(columns.starts[row], columns.starts[row + 1])
        size = np.array([width, height], np.float64)
        boxes, state = _judge(columns.boxes[part] * (np.tile(size, 2) if columns.relative else 1), size)
        keep = state <= _CLIPPED
        return Truth(
            boxes=boxes[keep],
            labels=columns.labels[part][keep],
            difficult=columns.difficult[part][keep],
            crowd=columns.crowd[part][keep],
        )

    def labelled(self, keys: Iterable[str]) -> list[str]:
        """Those of the pictures that are annotated, objects or none, in the order given. Raises as bind does."""
        keys = list(keys)
        rows = self._matcher.match(keys)
        return [key for key in keys if key in rows]

    def absent(self, keys: Iterable[str]) -> list[str]:
        """Names of annotated pictures that are none of these. Raises as bind does."""
        present = set(self._matcher.match(keys).values())
        return [name for row, name in enumerate(self.names) if row not in present]


def collect(
    records: Iterable[Record],
    relative: bool,
    known: Sequence[str] | None,
    classes: Sequence[str] | None,
    drop_other_classes: bool,
) -> AnnotationSet:
    """Records of any format to a set.

    relative: boxes are relative to the picture, not in pixels. known: the format's own class list, if it has one.
    classes: the list to use instead; without either, the names found, sorted.
    Raises RequestError for an object whose class is not in classes, unless such are to be dropped, and for a list that
    has a name twice.
    """
    names: list[str] = []
    sizes: list[tuple[float, float]] = []
    counts: list[int] = []
    objects: list[Object] = []
    wanted = None if classes is None else frozenset(classes)
    empty = other = 0
    for record in records:
        kept = [each for each in record.objects if wanted is None or each.name in wanted]
        if len(kept) < len(record.objects) and not drop_other_classes:
            foreign = next(each.name for each in record.objects if each not in kept)
            raise RequestError(_foreign(foreign, record.source, classes or ()))
        names.append(record.name)
        sizes.append((1, 1) if relative else record.size or (np.inf, np.inf))
        counts.append(len(kept))
        objects.extend(kept)
        empty += not record.objects
        other += len(record.objects) - len(kept)

    if classes is not None:
        known = classes
    listed = tuple(sorted({each.name for each in objects}) if known is None else known)
    columns = _columns(objects, counts, listed, relative)
    extents = np.repeat(np.array(sizes, np.float64).reshape(-1, 2)[:, ::-1], counts, axis=0)
    _, state = _judge(columns.boxes, extents)
    keep = state <= _CLIPPED
    per_class = np.bincount(columns.labels[keep], minlength=len(listed)).tolist()
    report = AnnotationReport(
        pictures=len(names),
        empty=empty,
        boxes=int(keep.sum()),
        per_class=dict(zip(listed, per_class, strict=True)),
        difficult=int(columns.difficult[keep].sum()),
        crowd=int(columns.crowd[keep].sum()),
        clipped=int((state == _CLIPPED).sum()),
        degenerate=int((state == _DEGENERATE).sum()),
        outside=int((state == _OUTSIDE).sum()),
        other_classes=other,
    )
    return AnnotationSet(listed, report, tuple(names), columns, Matcher(names))


@dataclass(frozen=True, slots=True)
class _Columns:
    """Objects of record r: rows starts[r] to starts[r + 1] of the rest; boxes [n, 4] xyxy as read."""

    starts: NDArray[np.int64]
    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    difficult: NDArray[np.bool_]
    crowd: NDArray[np.bool_]
    relative: bool


def _columns(objects: Sequence[Object], counts: Sequence[int], classes: Sequence[str], relative: bool) -> _Columns:
    number = {name: label for label, name in enumerate(classes)}
    if len(number) < len(classes):
        twice = next(name for label, name in enumerate(classes) if number[name] != label)
        raise RequestError(f"The class list has {twice} more than once: every class needs a name of its own.")
    return _Columns(
        starts=np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]),
        boxes=np.array([each.box for each in objects], np.float64).reshape(-1, 4),
        labels=np.array([number[each.name] for each in objects], np.int64),
        difficult=np.array([each.difficult for each in objects], np.bool_),
        crowd=np.array([each.crowd for each in objects], np.bool_),
        relative=relative,
    )


_WHOLE, _CLIPPED, _DEGENERATE, _OUTSIDE = range(4)


def _judge(boxes: NDArray[np.float64], size: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Boxes [n, 4] clipped to pictures of size [2] or [n, 2] (width, height), and what became of each, int64 [n]."""
    finite = np.isfinite(boxes).all(axis=1, keepdims=True)
    boxes = np.where(finite, boxes, 0.0)
    edges = np.concatenate([size, size], axis=-1)
    with np.errstate(over="ignore", invalid="ignore"):  # files may hold any number at all
        clipped = np.minimum(np.maximum(boxes, 0.0), edges).astype(np.float32)
        before, after = boxes[:, 2:] - boxes[:, :2], clipped[:, 2:] - clipped[:, :2]
        less = after.prod(axis=1) < 0.99 * before.prod(axis=1)
    no_size, no_overlap = (np.any(side <= 0, axis=1) for side in (before, after))
    return clipped, np.select([no_size, no_overlap, less], [_DEGENERATE, _OUTSIDE, _CLIPPED], _WHOLE)


def _foreign(name: str, source: str, classes: Sequence[str]) -> str:
    shown = ", ".join(classes[:20])
    return (
        f"{source} has an object of class {name!r}, which is none of the {len(classes)} classes ({shown}): correct the "
        "name, add the class, or leave such objects out by --drop-other-classes."
    )
