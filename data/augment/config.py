"""What augmentation may do to a picture."""

from dataclasses import dataclass

from data.errors import RequestError


@dataclass(frozen=True, slots=True)
class AugmentConfig:
    """Strengths as in Darknet's yolov2-tiny-voc.cfg; three switches.

    geometric: draw aspect, scale and place; off, the picture lies where it does at inference, mirrored or not.
    flip: probability of mirroring; 0 is off. jitter: width and height of the aspect each vary by this share.
    smallest_scale, largest_scale: size of the picture against one that just fits into the input; above 1 it is cropped.
    photometric: draw colours. hue: largest turn, as a share of the circle. saturation, exposure: largest factor.

    The scales are no longer in Darknet: its `load_data_detection` keeps 1, while the crop of `load_data_region`, which
    YOLOv2 was made with, comes to 0.7–1.7 for a jitter of 0.2. Raises RequestError for a value out of its range.
    """

    geometric: bool = True
    flip: float = 0.5
    jitter: float = 0.2
    smallest_scale: float = 0.7
    largest_scale: float = 1.4
    photometric: bool = True
    hue: float = 0.1
    saturation: float = 1.5
    exposure: float = 1.5

    def __post_init__(self) -> None:
        for name, fits, expected in (
            ("flip", 0 <= self.flip <= 1, "a probability from 0 to 1"),
            ("jitter", 0 <= self.jitter < 1, "a share of at least 0 and below 1"),
            ("smallest_scale", 0 < self.smallest_scale <= self.largest_scale, "above 0 and at most largest_scale"),
            ("hue", 0 <= self.hue <= 0.5, "a share of the colour circle from 0 to 0.5"),
            ("saturation", self.saturation >= 1, "a factor of 1 or more"),
            ("exposure", self.exposure >= 1, "a factor of 1 or more"),
        ):
            if not fits:
                raise RequestError(f"Augmentation {name} is {getattr(self, name)}; expected {expected}.")
