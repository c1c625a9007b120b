"""Colours that tell classes and lines apart, the same every time."""

import colorsys

Colour = tuple[int, int, int]

# Ordered so that neighbours differ in both hue and lightness; all stand out from photographs.
_FIRST: tuple[Colour, ...] = (
    (255, 75, 60),
    (0, 190, 255),
    (255, 200, 0),
    (170, 85, 255),
    (40, 210, 90),
    (255, 105, 190),
    (255, 140, 20),
    (60, 100, 255),
    (0, 205, 185),
    (190, 220, 40),
)
_GOLDEN_RATIO = 0.618034


def class_colour(index: int) -> Colour:
    """The RGB colour of a class: ten chosen ones, then hues spread by the golden ratio in three shades."""
    if index < len(_FIRST):
        return _FIRST[index]
    red, green, blue = colorsys.hsv_to_rgb(
        index * _GOLDEN_RATIO % 1, (0.85, 0.55, 0.95)[index % 3], (1, 1, 0.8)[index % 3]
    )
    return round(255 * red), round(255 * green), round(255 * blue)


def text_colour(background: Colour) -> Colour:
    """Black or white, whichever reads better on it: by WCAG's contrast of relative luminances."""
    red, green, blue = (_linear(channel / 255) for channel in background)
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    # Contrast with black is (L + .05) / .05, with white 1.05 / (L + .05): equal at L = sqrt(.05 · 1.05) − .05.
    return (0, 0, 0) if luminance > 0.179 else (255, 255, 255)


def _linear(value: float) -> float:
    return value / 12.92 if value <= 0.04045 else float(((value + 0.055) / 1.055) ** 2.4)
