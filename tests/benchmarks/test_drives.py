"""The split by drives: nothing within the gap of a test picture, every picture in one place, twins found."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.ablation.drives import Shares, nearest, split_at_random, split_drives

FRAMES = [f"A_{frame:06d}" for frame in range(0, 6000, 60)] + [f"B_{frame:06d}" for frame in range(1000, 3000, 20)]


def frame(stem: str) -> int:
    return int(stem.split("_")[1])


def test_every_picture_is_in_one_part() -> None:
    split = split_drives(FRAMES, Shares())
    parts = [split.labelled, split.unlabelled, split.validation, split.test, split.left_out]
    assert sorted(stem for part in parts for stem in part) == sorted(FRAMES)


@pytest.mark.parametrize("side", ["labelled", "unlabelled", "validation"])
def test_no_picture_lies_within_the_gap_of_a_test_picture(side: str) -> None:
    split = split_drives(FRAMES, Shares(gap=300))
    for one in split.test:
        for other in getattr(split, side):
            assert one[0] != other[0] or abs(frame(one) - frame(other)) >= 300


def test_each_part_of_a_drive_is_contiguous() -> None:
    split = split_drives(FRAMES, Shares())
    for drive in "AB":
        tested = [frame(stem) for stem in split.test if stem[0] == drive]
        others = [frame(stem) for stem in FRAMES if stem[0] == drive and stem not in split.test]
        assert not any(min(tested) < each < max(tested) for each in others)
        assert 0.25 < len(tested) / (len(tested) + len(others)) < 0.35


def test_a_frame_without_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match="DRIVE_FRAME"):
        split_drives(["street"], Shares())


def test_a_random_split_parts_neighbours() -> None:
    training, test = split_at_random(FRAMES, 60, seed=0)
    assert sorted(training + test) == sorted(FRAMES)
    assert len(test) == 60


def test_the_nearest_is_the_picture_that_looks_alike(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    scene = rng.integers(0, 256, (38, 64, 3), np.uint8)
    pictures = {
        "seen": scene,
        "twin": np.clip(scene.astype(int) + 2, 0, 255).astype(np.uint8),
        "other": 255 - scene,
    }
    files = {}
    for name, pixels in pictures.items():
        files[name] = tmp_path / f"{name}.png"
        Image.fromarray(pixels).save(files[name])
    ((difference, stem, found),) = nearest(["seen"], ["other", "twin"], files)
    assert (stem, found) == ("seen", "twin")
    assert difference < 0.01
