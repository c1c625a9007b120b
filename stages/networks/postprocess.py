"""From the region head's entries to detections in the picture, by Darknet's rules.

A slot gives one detection for every class whose score, objectness · class probability, is above the threshold (Darknet,
src/region_layer.c, get_region_detections; that the objectness itself must be above it follows). Then greedy
non-maximum suppression within each class, above an IoU of 0.45 (src/box.c, do_nms_sort). There is no limit on how many
remain; COCO's evaluation takes the best 100 of a picture itself.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import nms  # type: ignore[import-untyped]

from data.boxes import Detections
from data.views import View
from stages.networks.region import BOX_ENTRIES, decode_entries

SCORE_THRESHOLD = 0.005
"""Darknet's for measuring average precision; drawings want 0.25 or so."""

IOU_THRESHOLD = 0.45


def detections(
    entries_AEHW: Tensor,
    anchors: Sequence[tuple[float, float]],
    view: View,
    picture_height: int,
    picture_width: int,
    score_threshold: float = SCORE_THRESHOLD,
    iou_threshold: float = IOU_THRESHOLD,
    clip: bool = False,
) -> Detections:
    """What is found in one picture: entries [A, 5+K, H, W], in pixels of the picture, best first.

    view: how the picture was placed in the network's input. clip: cut boxes at the picture's edges, as Darknet's
    `detector valid` does before average precision is measured; a box wholly outside is then none. Boxes that are not
    finite (a raw size beyond the exponential's range) are never detections.
    """
    sizes = [(picture_height, picture_width)]
    return detections_of_batch(entries_AEHW[None], anchors, [view], sizes, score_threshold, iou_threshold, clip)[0]


@torch.no_grad()
def detections_of_batch(
    entries_BAEHW: Tensor,
    anchors: Sequence[tuple[float, float]],
    views: Sequence[View],
    picture_sizes: Sequence[tuple[int, int]],
    score_threshold: float = SCORE_THRESHOLD,
    iou_threshold: float = IOU_THRESHOLD,
    clip: bool = False,
) -> list[Detections]:
    """`detections` of several pictures: decoded and thresholded on the entries' device, suppressed on the CPU.

    picture_sizes: (height, width) of each picture, in pixels.
    """
    entries_BAEHW = entries_BAEHW.float()
    scores_BAKHW = entries_BAEHW[:, :, 4:5] * entries_BAEHW[:, :, BOX_ENTRIES:]
    b, a, k, row, column = (scores_BAKHW > score_threshold).nonzero(as_tuple=True)
    boxes_BAHW4 = decode_entries(entries_BAEHW, torch.tensor(anchors, device=entries_BAEHW.device))
    found = torch.cat(
        [
            boxes_BAHW4[b, a, row, column],
            scores_BAKHW[b, a, k, row, column, None],
            k[:, None].float(),
            b[:, None].float(),
        ],
        dim=1,
    ).cpu()
    counts = torch.bincount(found[:, 6].long(), minlength=len(entries_BAEHW)).tolist()
    return [
        _suppress(part, view, size, iou_threshold, clip)
        for part, view, size in zip(torch.split(found, counts), views, picture_sizes, strict=True)
    ]


def _suppress(found: Tensor, view: View, size: tuple[int, int], iou_threshold: float, clip: bool) -> Detections:
    centre, half = found[:, 0:2].double(), found[:, 2:4].double() / 2
    pixels = torch.tensor([view.width, view.height] * 2, dtype=torch.float64)
    xyxy = torch.cat([centre - half, centre + half], dim=1) * pixels
    finite = xyxy.isfinite().all(dim=1)
    xyxy, scores, labels = xyxy[finite], found[finite, 4], found[finite, 5].long()
    # Class by class rather than torchvision's batched_nms: its offsets would round boxes beside a very large one.
    kept = [
        members[nms(xyxy[members], scores[members].double(), iou_threshold)]
        for members in ((labels == label).nonzero()[:, 0] for label in np.unique(labels.numpy()))
    ]
    keep = torch.cat(kept) if kept else torch.zeros(0, dtype=torch.long)
    keep = keep[scores[keep].argsort(descending=True, stable=True)]
    boxes = view.unmap_xyxy(xyxy[keep].numpy())
    scores_n, labels_n = scores[keep].numpy(), labels[keep].numpy()
    if clip:
        boxes = _clipped(boxes, *size)
        inside = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        boxes, scores_n, labels_n = boxes[inside], scores_n[inside], labels_n[inside]
    return Detections(boxes.astype(np.float32), scores_n, labels_n)


def _clipped(boxes: NDArray[np.float64], height: int, width: int) -> NDArray[np.float64]:
    return np.clip(boxes, 0, [width, height, width, height])
