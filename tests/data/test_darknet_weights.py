import struct
from pathlib import Path

import numpy as np
import pytest

from data.darknet.weights import (
    ConvolutionShape,
    read_convolutions,
    read_leading_convolutions,
    read_weights,
)
from data.errors import RequestError
from tests.reference_darknet import random_arrays, write_weights

SHAPES = [ConvolutionShape(4, 3, 3, True), ConvolutionShape(6, 4, 1, True), ConvolutionShape(5, 6, 1, False)]
BODY = 4 * (4 * (4 + 27) + 6 * (4 + 4) + 5 * (1 + 6))


@pytest.mark.parametrize(("minor", "header_bytes"), [(1, 16), (2, 20)])
def test_every_array_comes_back_under_both_headers(tmp_path: Path, minor: int, header_bytes: int) -> None:
    path, arrays = tmp_path / "a.weights", random_arrays(SHAPES)
    write_weights(path, arrays, minor)
    file = read_weights(path)
    assert (file.minor, file.seen, file.header_bytes, file.nbytes) == (minor, 1234, header_bytes, header_bytes + BODY)
    for values, expected in zip(read_convolutions(file, SHAPES), arrays, strict=True):
        for key in ("bias", "scale", "mean", "variance", "kernel"):
            got = getattr(values, key)
            assert (got is None) == (key not in expected)
            if got is not None:
                np.testing.assert_array_equal(got, expected[key])


@pytest.mark.parametrize(("tail", "word"), [(b"\0", "long"), (b"\0" * 400, "long"), (None, "short")])
def test_a_file_of_another_length_is_refused_with_both_sizes(tmp_path: Path, tail: bytes | None, word: str) -> None:
    path = tmp_path / "a.weights"
    write_weights(path, random_arrays(SHAPES), tail=tail or b"")
    if tail is None:
        path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(RequestError, match=rf"too {word}.* {20 + BODY} bytes, the file has {path.stat().st_size};"):
        read_convolutions(read_weights(path), SHAPES)


def test_a_truncated_file_gives_its_whole_convolutions(tmp_path: Path) -> None:
    path, arrays = tmp_path / "a.conv.2", random_arrays(SHAPES)
    write_weights(path, arrays[:2])
    read = read_leading_convolutions(read_weights(path), SHAPES, more_may_follow=False)
    assert len(read) == 2
    np.testing.assert_array_equal(read[1].kernel, arrays[1]["kernel"])


def test_a_file_that_ends_within_a_convolution_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.conv.2"
    write_weights(path, random_arrays(SHAPES[:1]), tail=b"\0" * 12)
    one = 20 + 4 * SHAPES[0].values
    with pytest.raises(RequestError, match=rf"within convolution 2.*{one} bytes.*has {one + 12};"):
        read_leading_convolutions(read_weights(path), SHAPES, more_may_follow=True)


def test_only_what_may_follow_may_follow(tmp_path: Path) -> None:
    path = tmp_path / "a.weights"
    write_weights(path, random_arrays(SHAPES), tail=b"\0" * 40)
    assert len(read_leading_convolutions(read_weights(path), SHAPES, more_may_follow=True)) == 3
    with pytest.raises(RequestError, match="too long"):
        read_leading_convolutions(read_weights(path), SHAPES, more_may_follow=False)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "foreign"
    for content, message in [
        (b"short", "has 5 bytes"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 100, r"108 bytes\) is not a Darknet weights file"),
        (struct.pack("<3i", 0, 2, 0) + b"\0" * 4, "too short"),
    ]:
        path.write_bytes(content)
        with pytest.raises(RequestError, match=message):
            read_weights(path)
    with pytest.raises(RequestError, match="does not exist"):
        read_weights(tmp_path / "absent")
    with pytest.raises(RequestError, match="is a folder"):
        read_weights(tmp_path)


def test_values_that_no_training_leaves_are_refused(tmp_path: Path) -> None:
    path, arrays = tmp_path / "a.weights", random_arrays(SHAPES)
    arrays[1]["variance"][2] = -1
    write_weights(path, arrays)
    with pytest.raises(RequestError, match="negative variances in convolution 2"):
        read_convolutions(read_weights(path), SHAPES)
    arrays[1]["variance"][2] = np.nan
    write_weights(path, arrays)
    with pytest.raises(RequestError, match="not finite"):
        read_convolutions(read_weights(path), SHAPES)
