"""Boxes as typed values.

Two formats, never mixed: `xyxy` is left, top, right, bottom in pixels of a picture, continuous edges (a box that covers
pixel 0 alone is 0, 0, 1, 1); `cxcywh` is centre and size relative to the network's input, 0 to 1.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Truth:
    """The annotated objects of one picture, after clipping to it.

    boxes: float32 [n, 4], xyxy in pixels of the decoded picture. labels: int64 [n], index into the class list.
    difficult, crowd: bool [n]; such a box is never trained on, and neither counts for nor against a detection.
    """

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    difficult: NDArray[np.bool_]
    crowd: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.boxes)


@dataclass(frozen=True, slots=True)
class Detections:
    """What a detector found in one picture, best first.

    boxes: float32 [n, 4], xyxy in pixels of the decoded picture. scores: float32 [n], objectness times class
    probability. labels: int64 [n], index into the detector's class list.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.boxes)


def xyxy_to_cxcywh(boxes: NDArray[np.floating]) -> NDArray[np.floating]:
    """Corners to centre and size, in the same unit. [..., 4] to [..., 4]."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return np.concatenate([(low + high) / 2, high - low], axis=-1)


def cxcywh_to_xyxy(boxes: NDArray[np.floating]) -> NDArray[np.floating]:
    """Centre and size to corners, in the same unit. [..., 4] to [..., 4]."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return np.concatenate([centre - half, centre + half], axis=-1)
