"""Average precision as the PASCAL VOC development kit counts it (VOCevaldet.m, VOCap.m).

A detection is judged by the truth of its class that it overlaps most, even when a better-scored detection has taken
that truth already: then it is a false positive. If that truth is difficult (or a crowd), the detection counts neither
way.

Boxes have continuous edges here; the development kit adds 1 to widths of inclusive pixel coordinates, which is the same
once annotations are read as `left - 1, top - 1, right, bottom`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from data.boxes import Detections, Truth
from stages.bench.evaluation_set import evaluation_keys

_Scalar = TypeVar("_Scalar", bound=np.generic)


@dataclass(frozen=True, slots=True)
class ClassAP:
    """One class. `truths` are those that count (not difficult, no crowd); the precisions are None without any.

    detections: all of the class; ignored: those whose best truth is difficult or a crowd; true_positives: of the rest.
    """

    name: str
    truths: int
    detections: int
    ignored: int
    true_positives: int
    ap_11_point: float | None
    ap_all_point: float | None


@dataclass(frozen=True, slots=True)
class VocResult:
    """AP per class and its mean over the classes that have truths; `without_truth` names the others.

    Precisions are fractions, 0 to 1. The means are None if no class has a truth.
    """

    iou_threshold: float
    pictures: int
    classes: tuple[ClassAP, ...]
    map_11_point: float | None
    map_all_point: float | None
    without_truth: tuple[str, ...]


def voc_average_precision(
    detections: Mapping[str, Detections],
    truths: Mapping[str, Truth],
    classes: Sequence[str],
    iou_threshold: float = 0.5,
) -> VocResult:
    """VOC AP, 11-point (VOC2007) and all-point (VOC2010 on), of detections against truths with equal keys.

    Boxes are xyxy in pixels of the picture, in both. Equal scores rank by key, then by index in the picture. Raises
    ValueError as `evaluation_keys` says.
    """
    keys = evaluation_keys(detections, truths, classes)
    matched = [_match(detections[key], truths[key], iou_threshold) for key in keys]
    counted_labels = _concatenate([truths[key].labels[~_ignored(truths[key])] for key in keys], np.int64)
    first_truth = np.cumsum([0, *(len(truths[key]) for key in keys)])
    scores = _concatenate([detections[key].scores for key in keys], np.float32)
    labels = _concatenate([detections[key].labels for key in keys], np.int64)
    # Truths are numbered across pictures, so that "taken already" is a repeated number.
    best = _concatenate(
        [np.where(b < 0, -1, b + start) for (b, _), start in zip(matched, first_truth[:-1], strict=True)], np.int64
    )
    ignored = _concatenate([flags for _, flags in matched], np.bool_)

    results = []
    for index, name in enumerate(classes):
        mine = np.flatnonzero(labels == index)
        ranked = mine[np.argsort(-scores[mine], kind="stable")]
        counted = ranked[~ignored[ranked]]
        hits = _first_of_each(best[counted])
        n_truths = int(np.count_nonzero(counted_labels == index))
        results.append(
            ClassAP(
                name=name,
                truths=n_truths,
                detections=len(ranked),
                ignored=len(ranked) - len(counted),
                true_positives=int(hits.sum()),
                ap_11_point=eleven_point_ap(hits, n_truths) if n_truths else None,
                ap_all_point=all_point_ap(hits, n_truths) if n_truths else None,
            )
        )
    return VocResult(
        iou_threshold=iou_threshold,
        pictures=len(keys),
        classes=tuple(results),
        map_11_point=_mean([r.ap_11_point for r in results]),
        map_all_point=_mean([r.ap_all_point for r in results]),
        without_truth=tuple(r.name for r in results if not r.truths),
    )


def eleven_point_ap(hits: NDArray[np.bool_], truths: int) -> float:
    """Mean over recall 0, 0.1, …, 1 of the best precision at that recall or beyond. hits: [n], best score first."""
    found, precision = _curve(hits)
    # found/truths >= k/10 in whole numbers: 3 of 10 found is a recall of 0.3, whatever the rounding.
    best = [precision[10 * found >= k * truths].max(initial=0.0) for k in range(11)]
    return float(np.mean(best))


def all_point_ap(hits: NDArray[np.bool_], truths: int) -> float:
    """Area under the precision-recall curve, made monotonic from the right. hits: [n], best score first."""
    _, precision = _curve(hits)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(envelope[hits].sum() / truths)


def _curve(hits: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    found = np.cumsum(hits, dtype=np.int64)
    return found, found / np.arange(1, len(hits) + 1)


def _match(found: Detections, truth: Truth, iou_threshold: float) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """For each detection the index of the truth it would take, or -1, and whether it is to be ignored."""
    if not len(found) or not len(truth):
        return np.full(len(found), -1, np.int64), np.zeros(len(found), np.bool_)
    overlap = pairwise_iou(found.boxes, truth.boxes)
    overlap[found.labels[:, None] != truth.labels[None, :]] = -1.0
    best = overlap.argmax(axis=1)
    enough = overlap[np.arange(len(found)), best] >= iou_threshold
    ignored = enough & _ignored(truth)[best]
    return np.where(enough & ~ignored, best, -1), ignored


def pairwise_iou(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """Intersection over union of xyxy boxes [n, 4] and [m, 4], as [n, m]; 0 where they do not overlap."""
    a64, b64 = a.astype(np.float64)[:, None, :], b.astype(np.float64)[None, :, :]
    sides = np.minimum(a64[..., 2:], b64[..., 2:]) - np.maximum(a64[..., :2], b64[..., :2])
    overlap: NDArray[np.float64] = sides.clip(min=0).prod(axis=-1)
    union = _area(a64) + _area(b64) - overlap
    iou: NDArray[np.float64] = np.divide(overlap, union, out=np.zeros_like(overlap), where=overlap > 0)
    return iou


def _area(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    area: NDArray[np.float64] = (boxes[..., 2:] - boxes[..., :2]).clip(min=0).prod(axis=-1)
    return area


def _ignored(truth: Truth) -> NDArray[np.bool_]:
    return truth.difficult | truth.crowd


def _first_of_each(taken: NDArray[np.int64]) -> NDArray[np.bool_]:
    """True where a truth's number is met for the first time; -1 stands for no truth. [n] to [n]."""
    first = np.zeros(len(taken), np.bool_)
    first[np.unique(taken, return_index=True)[1]] = True
    return first & (taken >= 0)


def _concatenate(parts: Sequence[NDArray[_Scalar]], dtype: type[_Scalar]) -> NDArray[_Scalar]:
    joined: NDArray[_Scalar] = np.concatenate([np.empty(0, dtype), *parts])
    return joined


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
