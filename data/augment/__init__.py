"""Augmentation: the view a student gets of a picture, its colours, and the size of its input, drawn reproducibly.

For one sample: `rng = sample_rng(seed, epoch, key)`, then `draw_view` (6 numbers), then `distort` (5 numbers). Each
takes its numbers whatever is switched on, so that a switch changes only what it names.
"""

from data.augment.colour import distort, shift_colours
from data.augment.config import AugmentConfig
from data.augment.draws import draw_input_size, sample_rng
from data.augment.geometry import draw_view

__all__ = ["AugmentConfig", "distort", "draw_input_size", "draw_view", "sample_rng", "shift_colours"]
