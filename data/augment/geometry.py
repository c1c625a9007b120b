"""The geometric part: aspect, scale, place and mirroring, all in one view."""

from math import exp, log

import numpy as np

from data.augment.config import AugmentConfig
from data.views import Resize, View, resize_view


def draw_view(
    rng: np.random.Generator,
    config: AugmentConfig,
    resize: Resize,
    picture_height: int,
    picture_width: int,
    height: int,
    width: int,
) -> View:
    """How the student sees a picture this time: jittered aspect, a scale, a random place on grey, mirrored or not.

    After Darknet (src/data.c, `load_data_detection`): the aspect is (w ± jitter·w) / (h ± jitter·h), the picture is
    made to fit the input, then scaled, and put anywhere it fits or, where it is larger, anywhere without a gap. Darknet
    rounds size and place of the pixels, but not of the boxes; here both follow one exact map. With `stretch` the
    proportions are those of the input, as at inference. The scale is drawn evenly in its logarithm.

    Sizes in pixels. Takes six numbers from the generator, in this order: aspect width, aspect height, scale, left, top,
    mirroring. Without `geometric` the view is the one of inference, or its exact mirror image.
    """
    aspect_width, aspect_height, scale, left, top, flip = rng.random(6).tolist()
    if config.geometric:
        whole_width, whole_height = (width, height) if resize == "stretch" else (picture_width, picture_height)
        aspect = (whole_width * _between(1 - config.jitter, 1 + config.jitter, aspect_width)) / (
            whole_height * _between(1 - config.jitter, 1 + config.jitter, aspect_height)
        )
        fitting_height = min(height, width / aspect)
        factor = exp(_between(log(config.smallest_scale), log(config.largest_scale), scale))
        new_width, new_height = factor * fitting_height * aspect, factor * fitting_height
        view = View(
            scale_x=new_width / picture_width,
            scale_y=new_height / picture_height,
            shift_x=left * (width - new_width),
            shift_y=top * (height - new_height),
            height=height,
            width=width,
        )
    else:
        view = resize_view(resize, picture_height, picture_width, height, width)
    return view.mirrored() if flip < config.flip else view


def _between(low: float, high: float, share: float) -> float:
    return low + (high - low) * share
