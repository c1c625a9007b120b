"""How good a detector is on pictures with annotations: detection over all of them, then average precision."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.annotations import AnnotationSet
from data.boxes import Detections, Truth
from data.images import RejectedPictureError, decode
from data.picture_cache import PictureCache
from data.prefetch import map_ahead
from pipeline.progress import Progress, SilentProgress
from stages.bench.coco_ap import CocoResult, coco_average_precision
from stages.bench.detect import Predictor, Prepared
from stages.bench.voc_ap import VocResult, voc_average_precision
from stages.networks.postprocess import SCORE_THRESHOLD


@dataclass(frozen=True, slots=True)
class EvaluationPicture:
    """An annotated picture to evaluate on."""

    key: str
    path: Path


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Accuracy of one detector; `rejected` pictures could not be decoded and are left out, with their truth."""

    voc: VocResult
    coco: CocoResult | None
    rejected: tuple[tuple[str, str], ...]


def detect_all(
    predictor: Predictor,
    pictures: Sequence[EvaluationPicture],
    *,
    batch_size: int,
    threads: int,
    cache: PictureCache | None = None,
    progress: Progress | None = None,
    score_threshold: float = SCORE_THRESHOLD,
) -> Iterator[tuple[str, NDArray[np.uint8] | None, Detections, str]]:
    """Yield (key, decoded picture, detections, reason) of every picture, in order; a picture that can't be decoded has
    no picture, no detections, and a reason."""
    progress = progress or SilentProgress()

    def load(item: EvaluationPicture) -> tuple[NDArray[np.uint8] | None, Prepared | None, str]:
        picture = cache.get(item.key) if cache else None
        if picture is None:
            try:
                picture = decode(item.path.read_bytes())
            except RejectedPictureError as error:
                return None, None, error.reason
            if cache:
                cache.put(item.key, picture)
        return picture, predictor.prepare(picture), ""

    loaded = map_ahead(load, pictures, threads=threads, ahead=2 * batch_size)
    for start in range(0, len(pictures), batch_size):
        items = pictures[start : start + batch_size]
        batch = [next(loaded) for _ in items]
        prepared = [ready for _, ready, _ in batch if ready is not None]
        found = iter(_finish(predictor, prepared, score_threshold) if prepared else [])
        for item, (picture, ready, reason) in zip(items, batch, strict=True):
            yield item.key, picture, next(found) if ready is not None else NO_DETECTIONS, reason
        progress.advance(len(items))


def _finish(predictor: Predictor, prepared: list[Prepared], score_threshold: float) -> list[Detections]:
    return predictor.finish(predictor.forward(prepared), prepared, score_threshold=score_threshold)


NO_DETECTIONS = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))


def evaluate(
    predictor: Predictor,
    pictures: Sequence[EvaluationPicture],
    annotations: AnnotationSet,
    *,
    batch_size: int = 16,
    threads: int = 2,
    with_coco: bool,
    cache: PictureCache | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """VOC average precision at Darknet's validation thresholds (score .005, NMS .45), and if wanted COCO's.

    On 5,000 pictures VOC AP takes a second, COCO AP most of a minute: too long for every validation.
    """
    detections: dict[str, Detections] = {}
    truths: dict[str, Truth] = {}
    rejected = []
    for key, picture, found, reason in detect_all(
        predictor, pictures, batch_size=batch_size, threads=threads, cache=cache, progress=progress
    ):
        if picture is None:
            rejected.append((key, reason))
            continue
        truth = annotations.truth(key, *picture.shape[:2])
        if truth is not None:
            detections[key], truths[key] = found, truth
    voc = voc_average_precision(detections, truths, predictor.classes)
    coco = coco_average_precision(detections, truths, predictor.classes) if with_coco else None
    return Evaluation(voc, coco, tuple(rejected))
