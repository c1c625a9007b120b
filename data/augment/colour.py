"""The photometric part: hue, saturation and exposure."""

import numpy as np
from numpy.typing import NDArray

from data.augment.config import AugmentConfig

_SECTORS = 6
"""Hue runs through six sectors: red, yellow, green, cyan, blue, magenta."""

_LEAST_CHROMA = 1e-12
"""Spares grey pixels, whose hue is arbitrary, a division by zero."""


def distort(picture: NDArray[np.float32], rng: np.random.Generator, config: AugmentConfig) -> NDArray[np.float32]:
    """A rendered input [3, H, W], RGB in [0, 1], with drawn colours (Darknet, src/image.c, `random_distort_image`).

    The whole input is distorted, padding included, because Darknet does so after placing the picture on grey. Takes
    five numbers from the generator, in this order: hue, saturation, whether to divide by it, exposure, whether to
    divide by it. Without `photometric` the input itself is returned.
    """
    hue, saturation, less_saturation, exposure, less_exposure = rng.random(5).tolist()
    if not config.photometric:
        return picture
    return shift_colours(
        picture,
        hue=config.hue * (2 * hue - 1),
        saturation=_factor(config.saturation, saturation, less_saturation),
        exposure=_factor(config.exposure, exposure, less_exposure),
    )


def shift_colours(picture: NDArray[np.float32], hue: float, saturation: float, exposure: float) -> NDArray[np.float32]:
    """In HSV: hue turned by a share of the circle, S and V multiplied, the result clipped to [0, 1] in RGB.

    picture: float32 [3, H, W], RGB in [0, 1]; left as it is. Equals Darknet's `distort_image`, without the detour
    through S and V: in a hue's colour each channel lies below the brightest by chroma times a trapezoid of the hue.
    """
    red, green, blue = picture
    value = np.maximum(np.maximum(red, green), blue)
    chroma = value - np.minimum(np.minimum(red, green), blue)
    sector = np.where(
        value == red,
        green - blue,
        np.where(value == green, (blue - red) + 2 * chroma, (red - green) + 4 * chroma),
    )
    sector /= np.maximum(chroma, _LEAST_CHROMA)
    sector += _SECTORS * hue
    sector -= _SECTORS * np.floor(sector / _SECTORS)
    value *= exposure
    chroma *= saturation * exposure

    shifted = np.empty_like(picture)
    np.subtract(2, np.abs(sector - 3), out=shifted[0])
    np.subtract(np.abs(sector - 2), 1, out=shifted[1])
    np.subtract(np.abs(sector - 4), 1, out=shifted[2])
    np.clip(shifted, 0, 1, out=shifted)
    shifted *= chroma
    np.subtract(value, shifted, out=shifted)
    return np.clip(shifted, 0, 1, out=shifted)


def _factor(largest: float, share: float, inverse: float) -> float:
    """Darknet's rand_scale: evenly between 1 and the largest, or one over that, with equal chances."""
    factor = 1 + (largest - 1) * share
    return factor if inverse < 0.5 else 1 / factor
