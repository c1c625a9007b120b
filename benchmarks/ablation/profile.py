"""At what size the ablation runs: what a CPU can do in hours, and what a GPU does in minutes a run."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Profile:
    """Sizes of everything. steps: optimiser steps of every student, the same for all rows of a table.
    more_seeds: of the rows that `seeds` could not tell from the full one.

    jobs: trainings at once; threads: of each one's arithmetic (two of one thread beat one of two on narrow networks).
    recipe: flags of every training beside its own. seconds: expected of one student, one teacher, one labelling, before
    any was measured.
    """

    name: str
    device: str
    teacher_width: float
    student_width: float
    input_size: int
    batch_size: int
    teacher_steps: int
    steps: int
    seeds: int
    more_seeds: int
    jobs: int
    threads: int
    recipe: tuple[str, ...]
    seconds: tuple[float, float, float]


RECIPE = ("--learning-rate", "4e-3", "--clip-norm", "20", "--ema", "0.998", "--resize", "stretch")
"""A short training's: higher rate, moving average. Stretched, for a street is twice as wide as high and grey bars would
cost half of the arithmetic."""

PROFILES = {
    "cpu": Profile(
        name="cpu",
        device="cpu",
        teacher_width=0.25,
        student_width=0.25,
        input_size=288,
        batch_size=8,
        teacher_steps=6000,
        steps=2000,
        seeds=3,
        more_seeds=6,
        jobs=2,
        threads=1,
        recipe=RECIPE,
        seconds=(300, 1200, 60),
    ),
    "gpu": Profile(
        name="gpu",
        device="cuda",
        teacher_width=1.0,
        student_width=1.0,
        input_size=416,
        batch_size=32,
        teacher_steps=4000,
        steps=3000,
        seeds=3,
        more_seeds=6,
        jobs=3,
        threads=5,
        recipe=RECIPE,
        seconds=(240, 400, 30),
    ),
    "quick": Profile(
        name="quick",
        device="cpu",
        teacher_width=0.0625,
        student_width=0.0625,
        input_size=64,
        batch_size=4,
        teacher_steps=6,
        steps=4,
        seeds=2,
        more_seeds=3,
        jobs=2,
        threads=1,
        recipe=RECIPE,
        seconds=(5, 5, 5),
    ),
}
"""quick only tries the code."""
