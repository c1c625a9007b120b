"""COCO's average precision and recall, computed by pycocotools.

Truths here have boxes and no masks, so small, medium and large go by the area of the box, where COCO's own annotations
go by the area of the mask: those figures of a COCO data set differ a little from published ones, the others do not.
"""

import contextlib
import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.boxes import Detections, Truth
from stages.bench.evaluation_set import evaluation_keys

# Below every range of areas, "all" included: pycocotools then ignores the truth and what matches it. Its own `ignore`
# field would not do, COCOeval overwrites it with `iscrowd`, which changes how overlap is measured.
_IGNORED_AREA = -1.0


@dataclass(frozen=True, slots=True)
class CocoResult:
    """The twelve figures of COCO's summary, as fractions; None where there is no truth to find.

    ap: mean over IoU 0.50 to 0.95; ap50, ap75: at one IoU; small < 32², medium < 96² pixels of area; ar_1, ar_10,
    ar_100: recall with so many detections per picture and class. At most 100 are looked at for any figure.
    """

    ap: float | None
    ap50: float | None
    ap75: float | None
    ap_small: float | None
    ap_medium: float | None
    ap_large: float | None
    ar_1: float | None
    ar_10: float | None
    ar_100: float | None
    ar_small: float | None
    ar_medium: float | None
    ar_large: float | None


def coco_average_precision(
    detections: Mapping[str, Detections], truths: Mapping[str, Truth], classes: Sequence[str]
) -> CocoResult:
    """COCO AP and AR of detections against truths with equal keys; boxes are xyxy in pixels of the picture.

    A crowd is COCO's `iscrowd`: it takes any number of detections, by the part of each that lies inside. A difficult
    truth, which COCO does not know, is ignored: it need not be found, and one detection may match it at no cost.
    Raises ValueError as `evaluation_keys` says.
    """
    keys = evaluation_keys(detections, truths, classes)
    found = [record for number, key in enumerate(keys, 1) for record in _found(detections[key], number)]
    expected = [record for number, key in enumerate(keys, 1) for record in _expected(truths[key], number)]
    with _quiet():
        from pycocotools.cocoeval import COCOeval

        evaluation = COCOeval(_index(expected, len(keys), classes), _index(found, len(keys), classes), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return CocoResult(*(None if value < 0 else float(value) for value in evaluation.stats))


def _found(found: Detections, picture: int) -> Iterator[dict[str, Any]]:
    for box, area, label, score in zip(*_boxes(found.boxes), found.labels.tolist(), found.scores.tolist(), strict=True):
        yield {"image_id": picture, "category_id": label, "bbox": box, "area": area, "score": score, "iscrowd": 0}


def _expected(truth: Truth, picture: int) -> Iterator[dict[str, Any]]:
    flags = truth.crowd.tolist(), truth.difficult.tolist()
    for box, area, label, crowd, difficult in zip(*_boxes(truth.boxes), truth.labels.tolist(), *flags, strict=True):
        yield {
            "image_id": picture,
            "category_id": label,
            "bbox": box,
            "area": _IGNORED_AREA if difficult and not crowd else area,
            "iscrowd": int(crowd),
        }


def _boxes(xyxy: NDArray[np.float32]) -> tuple[list[list[float]], list[float]]:
    """COCO's left, top, width, height, and the areas."""
    boxes = xyxy.astype(np.float64).reshape(-1, 4)
    sizes = boxes[:, 2:] - boxes[:, :2]
    return np.concatenate([boxes[:, :2], sizes], axis=1).tolist(), sizes.prod(axis=1).tolist()


def _index(annotations: list[dict[str, Any]], pictures: int, classes: Sequence[str]) -> Any:
    from pycocotools.coco import COCO

    coco = COCO()
    coco.dataset = {
        "images": [{"id": number} for number in range(1, pictures + 1)],
        "categories": [{"id": index, "name": name} for index, name in enumerate(classes)],
        # From 1: COCOeval marks "matched" by the number of the partner, and 0 as "not matched".
        "annotations": [{"id": number, **annotation} for number, annotation in enumerate(annotations, 1)],
    }
    coco.createIndex()
    return coco


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Drops what pycocotools prints, and the deprecations of numpy it has not followed yet."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield
