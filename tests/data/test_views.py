from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from data.views import View, letterbox_view, place_boxes, render, resize_view, stretch_view
from tests.reference_views import darknet_letterbox, render_by_loops

SHARED = Path(__file__).parents[2].parent / "shared"
DOG = SHARED / "darknet" / "images" / "dog.jpg"
DOG_REFERENCE = SHARED / "darknet" / "reference" / "dog_letterbox_416.npz"
sizes = st.integers(1, 12)
scales = st.floats(0.05, 5).flatmap(lambda scale: st.sampled_from([scale, -scale]))


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@st.composite
def views(draw: st.DrawFn) -> View:
    shift = st.floats(-20, 20)
    return View(draw(scales), abs(draw(scales)), draw(shift), draw(shift), draw(sizes), draw(sizes))


@given(views(), sizes, sizes)
@settings(deadline=None, max_examples=150)
def test_render_is_the_formula(view: View, height: int, width: int) -> None:
    picture = noise(height, width)
    got = render(picture, view)
    assert got.dtype == np.float32
    assert got.shape == (3, view.height, view.width)
    assert got.min() >= 0
    assert got.max() <= 1
    np.testing.assert_allclose(got, render_by_loops(picture, view), atol=1e-5)


@given(views(), sizes, sizes)
@settings(deadline=None, max_examples=100)
def test_mirroring_flips_bit_for_bit(view: View, height: int, width: int) -> None:
    picture = noise(height, width)
    assert np.array_equal(render(picture, view.mirrored()), render(picture, view)[:, :, ::-1])
    assert view.mirrored().mirrored() == view


@pytest.mark.parametrize(("height", "width"), [(31, 47), (47, 31), (64, 64), (7, 200), (96, 64), (11, 9), (600, 900)])
def test_letterbox_is_darknets_two_pass_resize(height: int, width: int) -> None:
    picture = noise(height, width)
    got = render(picture, letterbox_view(height, width, 64, 96))
    np.testing.assert_allclose(got, darknet_letterbox(picture, 64, 96), atol=1e-4)


@pytest.mark.skipif(not DOG_REFERENCE.exists(), reason="the Darknet reference is not beside this checkout")
def test_letterbox_of_the_reference_picture() -> None:
    # The JPEG decoders differ by up to three levels (measured: at most 0.0113, 0.00028 on average); the placement does
    # not: moved by a twentieth of a pixel, the differences are 0.062 and 0.0018.
    with Image.open(DOG) as image:
        picture = np.asarray(image.convert("RGB"))
    with np.load(DOG_REFERENCE) as file:
        expected = file["input"]
    got = render(picture, letterbox_view(*picture.shape[:2], 416, 416))
    difference = np.abs(got - expected)
    assert difference.mean() < 5e-4
    assert difference.max() < 0.02
    assert np.array_equal(got[:, :52], expected[:, :52])


def test_letterbox_view_of_odd_sizes() -> None:
    # 333 * 416 // 500 = 277 rows, (416 - 277) // 2 = 69 from the top
    view = letterbox_view(333, 500, 416, 416)
    assert (view.scale_x, view.scale_y) == (416 / 500, 277 / 333)
    assert (view.shift_x, view.shift_y) == (0, 69)
    extreme = letterbox_view(1, 5000, 416, 416)
    assert extreme.scale_y == 1
    assert render(noise(1, 5000), extreme).shape == (3, 416, 416)


def test_same_size_is_the_picture_itself() -> None:
    picture = noise(32, 32)
    expected = picture.transpose(2, 0, 1).astype(np.float32) / 255
    assert np.array_equal(render(picture, stretch_view(32, 32, 32, 32)), expected)
    assert np.array_equal(render(picture, resize_view("letterbox", 32, 32, 32, 32)), expected)


def test_resize_by_name() -> None:
    assert resize_view("stretch", 30, 60, 32, 32) == stretch_view(30, 60, 32, 32)
    assert resize_view("letterbox", 30, 60, 32, 32) == letterbox_view(30, 60, 32, 32)
    assert resize_view("stretch", 30, 60, 32, 32) != resize_view("letterbox", 30, 60, 32, 32)


def test_a_picture_outside_the_window_leaves_grey() -> None:
    assert (render(noise(8, 8), View(1, 1, -20, 0, 16, 16)) == 0.5).all()


def test_only_the_shown_part_is_read() -> None:
    # 300 GB if it was copied; four by four pixels are in the window
    picture = np.broadcast_to(np.uint8(51), (1_000_000, 100_000, 3))
    assert np.allclose(render(picture, View(1, 1, -500, -700, 4, 4)), 0.2)


@pytest.mark.parametrize(
    "values", [(0, 1, 0, 0, 4, 4), (1, -1, 0, 0, 4, 4), (1, 1, float("nan"), 0, 4, 4), (1, 1, 0, 0, 0, 4)]
)
def test_impossible_views_are_refused(values: tuple[float, float, float, float, int, int]) -> None:
    with pytest.raises(ValueError, match="a view has"):
        View(*values)


@given(views(), st.lists(st.tuples(*[st.floats(-50, 50)] * 4), max_size=5))
@settings(deadline=None, max_examples=100)
def test_boxes_map_and_come_back(view: View, corners: list[tuple[float, ...]]) -> None:
    boxes = np.sort(np.array(corners, np.float64).reshape(-1, 2, 2), axis=1).reshape(-1, 4)
    mapped = view.map_xyxy(boxes)
    assert (mapped[:, :2] <= mapped[:, 2:]).all()
    np.testing.assert_allclose(view.unmap_xyxy(mapped), boxes, atol=1e-9)
    flipped = view.mirrored().map_xyxy(boxes)
    np.testing.assert_allclose(flipped[:, [0, 2]], view.width - mapped[:, [2, 0]], atol=1e-9)


@given(views(), st.tuples(*[st.floats(-10, 40)] * 4), st.integers(1, 30), st.integers(1, 30))
@settings(deadline=None, max_examples=200)
def test_boxes_are_placed_as_one_would_by_hand(view: View, corners: tuple[float, ...], height: int, width: int) -> None:
    x1, x2, y1, y2 = *sorted(corners[:2]), *sorted(corners[2:])
    (placed,), (keep,) = place_boxes(np.array([[x1, y1, x2, y2]]), view, height, width)

    def along(low: float, high: float, scale: float, shift: float, picture: int, window: int) -> tuple[float, float]:
        low, high = sorted((low * scale + shift, high * scale + shift))
        edges = sorted((shift, picture * scale + shift))
        # an edge that is the window's but for rounding doesn't cut
        assume(all(distance == 0 or distance > 1e-5 for distance in (abs(edges[0]), abs(edges[1] - window))))
        if edges[0] < 0:
            low, high = max(low, 0), max(high, 0)
        if edges[1] > window:
            low, high = min(low, window), min(high, window)
        return (low + high) / 2 / window, (high - low) / window

    cx, w = along(x1, x2, view.scale_x, view.shift_x, width, view.width)
    cy, h = along(y1, y2, view.scale_y, view.shift_y, height, view.height)
    np.testing.assert_allclose(placed, [cx, cy, w, h], atol=1e-6)
    slack = min(abs(w - 0.001), abs(h - 0.001), abs(cx), abs(cy), abs(cx - 1), abs(cy - 1))
    if slack > 1e-6:
        assert keep == (w >= 0.001 and h >= 0.001 and 0 <= cx <= 1 and 0 <= cy <= 1)


def test_boxes_are_clipped_only_where_the_window_cuts_the_picture() -> None:
    beyond = np.array([[-10.0, 10.0, 50.0, 30.0]])
    whole = stretch_view(100, 100, 100, 100)
    placed, keep = place_boxes(beyond, whole, 100, 100)
    np.testing.assert_allclose(placed, [[0.2, 0.2, 0.6, 0.2]])
    cropped = View(1, 1, -5, 0, 100, 100)  # the window begins 5 pixels inside the picture
    placed, keep = place_boxes(beyond, cropped, 100, 100)
    np.testing.assert_allclose(placed, [[0.225, 0.2, 0.45, 0.2]])
    assert keep.all()
    mirrored, _ = place_boxes(beyond, cropped.mirrored(), 100, 100)
    np.testing.assert_allclose(mirrored, [[0.775, 0.2, 0.45, 0.2]])


def test_no_boxes_and_unusable_boxes() -> None:
    view = stretch_view(10, 10, 32, 32)
    placed, keep = place_boxes(np.zeros((0, 4)), view, 10, 10)
    assert placed.shape == (0, 4)
    assert keep.shape == (0,)
    _, keep = place_boxes(np.array([[1, 1, 1, 5], [np.nan, 1, 3, 3], [1, 1, 3, 3]]), view, 10, 10)
    assert keep.tolist() == [False, False, True]
