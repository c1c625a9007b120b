"""Anchors for the user's own boxes: k-means with distance 1 − IoU (YOLO9000, section 2, "Dimension clusters")."""

import numpy as np
from numpy.typing import NDArray

from data.errors import RequestError

_ITERATIONS = 300
_RESTARTS = 8


def kmeans_anchors(
    sizes_n2: NDArray[np.floating], k: int = 5, seed: int = 0
) -> tuple[tuple[tuple[float, float], ...], float]:
    """Cluster box sizes [n, 2] (width, height in cells) into k anchors, smallest area first, and their mean best IoU.

    IoU is that of two boxes with the same centre. A cluster's anchor is the mean of its sizes, as the paper's k-means
    has it. The best of several seeded starts (k-means++) is returned; equal arguments give equal anchors.
    RequestError for fewer different sizes than anchors, ValueError for sizes that are not positive.
    """
    sizes = np.asarray(sizes_n2, np.float64)
    if sizes.ndim != 2 or sizes.shape[1] != 2 or not (np.isfinite(sizes).all() and (sizes > 0).all()):
        raise ValueError("sizes must be [n, 2] positive numbers")
    different = len(np.unique(sizes, axis=0))
    if k < 1 or different < k:
        raise RequestError(f"{k} anchors need at least as many boxes of different size; there are {different}.")
    random = np.random.default_rng(seed)
    runs = [_cluster(sizes, _plus_plus(sizes, k, random)) for _ in range(_RESTARTS)]
    anchors = max(runs, key=lambda run: _iou(sizes, run).max(axis=1).mean())
    anchors = anchors[np.argsort(anchors.prod(axis=1), kind="stable")]
    return tuple((float(w), float(h)) for w, h in anchors), float(_iou(sizes, anchors).max(axis=1).mean())


def _cluster(sizes: NDArray[np.float64], anchors: NDArray[np.float64]) -> NDArray[np.float64]:
    previous = None
    for _ in range(_ITERATIONS):
        iou = _iou(sizes, anchors)
        nearest = iou.argmax(axis=1)
        if previous is not None and np.array_equal(nearest, previous):
            break
        previous = nearest
        counts = np.bincount(nearest, minlength=len(anchors))
        sums = np.stack([np.bincount(nearest, sizes[:, axis], len(anchors)) for axis in (0, 1)], axis=1)
        # An anchor that lost all its boxes keeps its place: a later move of the others can bring some back.
        full = counts > 0
        anchors = anchors.copy()
        anchors[full] = sums[full] / counts[full, None]
    return anchors


def _plus_plus(sizes: NDArray[np.float64], k: int, random: np.random.Generator) -> NDArray[np.float64]:
    """Starting anchors, each drawn in proportion to its squared distance from those before."""
    anchors: NDArray[np.float64] = sizes[random.integers(len(sizes))][None]
    while len(anchors) < k:
        weight = (1 - _iou(sizes, anchors).max(axis=1)).clip(min=1e-6) ** 2
        weight[(sizes[:, None] == anchors).all(axis=2).any(axis=1)] = 0
        anchors = np.concatenate([anchors, sizes[random.choice(len(sizes), p=weight / weight.sum())][None]])
    return anchors


def _iou(sizes_n2: NDArray[np.float64], anchors_k2: NDArray[np.float64]) -> NDArray[np.float64]:
    inner = np.minimum(sizes_n2[:, None], anchors_k2).prod(axis=2)
    iou: NDArray[np.float64] = inner / (sizes_n2.prod(axis=1)[:, None] + anchors_k2.prod(axis=1) - inner)
    return iou
