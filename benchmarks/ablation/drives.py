"""Pictures that are frames of drives: a split by contiguous blocks, and how much of a test set has a twin in training.

Neighbouring frames are near-twins. A random split puts them on both sides, and the test then asks what was memorised.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

FRAME = re.compile(r"(?P<drive>.+)_(?P<frame>\d+)")
THUMBNAIL = (64, 38)
TWIN_DIFFERENCE = 0.02
"""Mean absolute difference of grey thumbnails, of the full range, below which two pictures show the same scene with at
most small things moved: looked at, picture by picture (docs/results.md shows pairs at this limit)."""


@dataclass(frozen=True, slots=True)
class DriveSplit:
    """Stems of each part, in order; `left_out` are those of the gaps."""

    labelled: tuple[str, ...]
    unlabelled: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    left_out: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Shares:
    """Of every drive: what is tested and validated on, and what of the rest is annotated. gap: frame numbers between
    two sides; what lies within is left out."""

    test: float = 0.30
    validation: float = 0.10
    labelled: float = 0.27
    gap: int = 300


def split_drives(stems: Sequence[str], shares: Shares) -> DriveSplit:
    """Cut every drive into: training | gap | test | gap | validation | gap | training, with the annotated part of each
    training block at its outer end, so that it borders on unlabelled pictures only.

    stems: DRIVE_FRAME; frame numbers count the simulator's frames, so a gap is the same distance at any sampling. A
    drive that is short of the gap has nothing to validate on. Raises ValueError for another name.
    """
    parts: dict[str, list[str]] = {name: [] for name in ("labelled", "unlabelled", "validation", "test", "left_out")}
    for _, drive in groupby(sorted(stems, key=_place), key=lambda stem: _place(stem)[0]):
        frames = list(drive)
        count = len(frames)
        first = round(count * (1 - shares.test - shares.validation) / 2)
        second = first + round(count * shares.test)
        third = second + round(count * shares.validation)
        before, test, validation, after = frames[:first], frames[first:second], frames[second:third], frames[third:]
        before, cut = _without_end(before, test[0], shares.gap)
        validation, cut_2 = _without_start(validation, test[-1], shares.gap)
        after, cut_3 = _without_start(after, (validation or test)[-1], shares.gap)
        annotated = round(shares.labelled * len(before)), round(shares.labelled * len(after))
        parts["labelled"] += before[: annotated[0]] + after[len(after) - annotated[1] :]
        parts["unlabelled"] += before[annotated[0] :] + after[: len(after) - annotated[1]]
        parts["validation"] += validation
        parts["test"] += test
        parts["left_out"] += cut + cut_2 + cut_3
    return DriveSplit(**{name: tuple(found) for name, found in parts.items()})


def split_at_random(stems: Sequence[str], test: int, seed: int) -> tuple[list[str], list[str]]:
    """(training, test) as nobody should split drives; for comparison."""
    order = np.random.default_rng(seed).permutation(len(stems))
    names = [sorted(stems)[i] for i in order]
    return names[test:], names[:test]


def nearest(test: Sequence[str], training: Sequence[str], files: Mapping[str, Path]) -> list[tuple[float, str, str]]:
    """Of every test picture: how much the most similar training picture differs, its stem, and that of the other."""
    ours, theirs = thumbnails(test, files), thumbnails(training, files)
    found = []
    for stem, one in zip(test, ours, strict=True):
        differences = np.abs(theirs - one).mean(axis=(1, 2))
        i = int(differences.argmin())
        found.append((float(differences[i]), stem, training[i]))
    return found


def thumbnails(stems: Sequence[str], files: Mapping[str, Path]) -> NDArray[np.float32]:
    """Grey and small, float32 in [0, 1], [N, rows, columns]."""
    small = [Image.open(files[stem]).convert("L").resize(THUMBNAIL, Image.Resampling.BOX) for stem in stems]
    return np.stack([np.asarray(picture, np.float32) / 255 for picture in small])


def _place(stem: str) -> tuple[str, int]:
    match = FRAME.fullmatch(stem)
    if match is None:
        raise ValueError(f"{stem} is not DRIVE_FRAME")
    return match["drive"], int(match["frame"])


def _without_end(block: list[str], neighbour: str, gap: int) -> tuple[list[str], list[str]]:
    limit = _place(neighbour)[1] - gap
    kept = [stem for stem in block if _place(stem)[1] <= limit]
    return kept, block[len(kept) :]


def _without_start(block: list[str], neighbour: str, gap: int) -> tuple[list[str], list[str]]:
    limit = _place(neighbour)[1] + gap
    kept = [stem for stem in block if _place(stem)[1] >= limit]
    return kept, block[: len(block) - len(kept)]
