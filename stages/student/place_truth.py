"""Ground truth as the student's loss takes it: in the student's view, without what is never trained on."""

import numpy as np
from numpy.typing import NDArray

from data.boxes import Truth
from data.views import View, place_boxes


def place_truth(
    truth: Truth, view: View, picture_height: int, picture_width: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The boxes to train on: (float32 [n, 4] cxcywh relative to the view's input, int64 [n] labels), in their order.

    Difficult and crowd boxes are left out. The rest follow the pixels by the rules that soft labels follow
    (`data.views.place_boxes`): clipped where the input cuts the picture, dropped when a side is below 0.001 of the
    input or the centre is outside.
    """
    trained = ~(truth.difficult | truth.crowd)
    boxes, shown = place_boxes(truth.boxes[trained], view, picture_height, picture_width)
    return boxes[shown].astype(np.float32), truth.labels[trained][shown]
