"""Augmentation: reproducible draws, Darknet's geometry, and colours against the standard library's HSV."""

import colorsys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import data.augment
from data.augment import AugmentConfig, distort, draw_input_size, draw_view, sample_rng, shift_colours
from data.errors import RequestError
from data.views import View, resize_view

PICTURES = st.tuples(st.integers(20, 700), st.integers(20, 700))
SEEDS = st.integers(0, 2**32 - 1)


def extent(view: View, picture_height: int, picture_width: int) -> np.ndarray:
    """Left, top, right, bottom of the whole picture in the input."""
    return view.map_xyxy(np.array([0, 0, picture_width, picture_height], np.float64))


def test_the_front_door_is_true():
    assert all(hasattr(data.augment, name) for name in data.augment.__all__)


def test_draws_depend_on_seed_epoch_and_key_alone():
    first = sample_rng(3, 5, "voc/a.jpg").random(4)
    sample_rng(3, 5, "voc/b.jpg").random(100)
    np.testing.assert_array_equal(sample_rng(3, 5, "voc/a.jpg").random(4), first)
    for other in (sample_rng(4, 5, "voc/a.jpg"), sample_rng(3, 6, "voc/a.jpg"), sample_rng(3, 5, "voc/b.jpg")):
        assert not np.isin(other.random(4), first).any()


def test_draws_do_not_change_between_versions():
    """A resumed run may be continued by a later version: the stream itself is fixed."""
    np.testing.assert_allclose(
        sample_rng(0, 1, "voc/a.jpg").random(2), [0.4984818386987846, 0.29090305929463767], rtol=1e-15
    )


def test_seed_and_epoch_are_kept_apart():
    assert sample_rng(1, 23, "a").random() != sample_rng(12, 3, "a").random()


def test_a_name_that_is_not_unicode_is_a_key_like_any_other():
    assert sample_rng(0, 0, "voc/\udcff.jpg").random() != sample_rng(0, 0, "voc/\udcfe.jpg").random()


@pytest.mark.parametrize("off", ["geometric", "flip", "photometric"])
def test_a_switch_changes_only_what_it_names(off):
    """Whatever is off, each draw takes as many numbers as ever."""
    config = AugmentConfig(**{off: False})  # for flip, False is the probability 0
    reference, switched = sample_rng(0, 0, "a"), sample_rng(0, 0, "a")
    draw_view(reference, AugmentConfig(), "letterbox", 30, 40, 64, 64)
    draw_view(switched, config, "letterbox", 30, 40, 64, 64)
    picture = np.full((3, 2, 2), 0.25, np.float32)
    distort(picture, reference, AugmentConfig())
    distort(picture, switched, config)
    assert reference.random() == switched.random()


def darknet_placement(numbers: np.ndarray, config: AugmentConfig, w: int, h: int, size: int) -> list[float]:
    """load_data_detection as written in C, for its square input, with the scale it has commented out."""
    dw, dh = config.jitter * w, config.jitter * h
    new_ar = (w + (2 * numbers[0] - 1) * dw) / (h + (2 * numbers[1] - 1) * dh)
    scale = config.smallest_scale * (config.largest_scale / config.smallest_scale) ** numbers[2]
    if new_ar < 1:
        nh = scale * size
        nw = nh * new_ar
    else:
        nw = scale * size
        nh = nw / new_ar
    dx, dy = numbers[3] * (size - nw), numbers[4] * (size - nh)
    return [dx, dy, dx + nw, dy + nh]


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS, picture=PICTURES)
def test_the_picture_lies_where_darknet_puts_it(seed, picture):
    height, width = picture
    config = AugmentConfig()
    numbers = np.random.default_rng(seed).random(6)
    view = draw_view(np.random.default_rng(seed), config, "letterbox", height, width, 416, 416)
    expected = darknet_placement(numbers, config, width, height, 416)
    if numbers[5] < 0.5:
        assert view.scale_x < 0
        expected = [416 - expected[2], expected[1], 416 - expected[0], expected[3]]
    np.testing.assert_allclose(extent(view, height, width), expected, atol=1e-4)


@settings(deadline=None, max_examples=60)
@given(
    seed=SEEDS,
    picture=PICTURES,
    size=st.sampled_from([(416, 416), (320, 608), (608, 320)]),
    resize=st.sampled_from(["letterbox", "stretch"]),
    scale=st.sampled_from([0.4, 1.0, 2.5]),
)
def test_a_picture_is_wholly_shown_or_leaves_no_gap(seed, picture, size, resize, scale):
    """Along each axis; and at scale 1 one axis is filled exactly, for an input of any proportions."""
    (picture_height, picture_width), (height, width) = picture, size
    config = AugmentConfig(smallest_scale=scale, largest_scale=scale)
    rng = np.random.default_rng(seed)
    view = draw_view(rng, config, resize, picture_height, picture_width, height, width)
    left, top, right, bottom = extent(view, picture_height, picture_width)
    for low, high, full in ((left, right, width), (top, bottom, height)):
        inside, covering = low >= -1e-4 and high <= full + 1e-4, low <= 1e-4 and high >= full - 1e-4
        assert inside or covering
    largest = max((right - left) / width, (bottom - top) / height)
    assert largest == pytest.approx(scale, rel=1e-4)


@settings(deadline=None, max_examples=40)
@given(seed=SEEDS, picture=PICTURES, resize=st.sampled_from(["letterbox", "stretch"]))
def test_without_geometry_the_view_is_that_of_inference_or_its_exact_mirror(seed, picture, resize):
    plain = resize_view(resize, *picture, 416, 416)
    drawn = [
        draw_view(np.random.default_rng(seed), AugmentConfig(geometric=False, flip=flip), resize, *picture, 416, 416)
        for flip in (0.0, 1.0)
    ]
    assert drawn == [plain, plain.mirrored()]


def test_stretch_keeps_the_inputs_proportions_without_jitter():
    config = AugmentConfig(jitter=0, smallest_scale=1, largest_scale=1, flip=0)
    view = draw_view(np.random.default_rng(0), config, "stretch", 100, 300, 416, 416)
    np.testing.assert_allclose(extent(view, 100, 300), [0, 0, 416, 416], atol=1e-4)


def test_half_of_the_views_are_mirrored():
    rng = np.random.default_rng(0)
    views = [draw_view(rng, AugmentConfig(), "letterbox", 30, 40, 64, 64) for _ in range(400)]
    assert 160 < sum(view.scale_x < 0 for view in views) < 240


@settings(deadline=None, max_examples=60)
@given(
    seed=SEEDS,
    hue=st.floats(-0.5, 0.5),
    saturation=st.floats(0.3, 3),
    exposure=st.floats(0.3, 3),
)
def test_colours_equal_the_hsv_round_trip(seed, hue, saturation, exposure):
    """Darknet's distort_image: S is not limited, RGB is clipped at the end. Five levels give greys and ties."""
    levels = np.random.default_rng(seed).integers(0, 5, (3, 4, 4)).astype(np.float32) / 4
    shifted = shift_colours(levels, hue, saturation, exposure)
    assert shifted.dtype == np.float32
    for row, column in np.ndindex(4, 4):
        h, s, v = colorsys.rgb_to_hsv(*map(float, levels[:, row, column]))
        expected = colorsys.hsv_to_rgb((h + hue) % 1, s * saturation, v * exposure)
        np.testing.assert_allclose(shifted[:, row, column], np.clip(expected, 0, 1), atol=2e-5)


def test_colours_are_left_alone_by_neutral_settings_and_the_input_is_not_overwritten():
    picture = np.random.default_rng(0).random((3, 8, 8), np.float32)
    before = picture.copy()
    np.testing.assert_allclose(shift_colours(picture, 0, 1, 1), picture, atol=1e-6)
    shift_colours(picture, 0.1, 1.5, 0.7)
    np.testing.assert_array_equal(picture, before)


def test_drawn_colours_stay_within_the_strengths():
    """Exposure alone moves grey, by at most the factor, either way; and every draw is another."""
    grey = np.full((3, 1, 1), 0.5, np.float32)
    rng, config = np.random.default_rng(0), AugmentConfig()
    values = np.array([distort(grey, rng, config).ravel() for _ in range(200)])
    np.testing.assert_array_equal(values.max(axis=1), values.min(axis=1))
    assert values.min() >= 0.5 / 1.5 - 1e-6
    assert values.max() <= 0.75 + 1e-6
    assert values.min() < 0.36
    assert values.max() > 0.72


def test_hue_turns_either_way_and_by_no_more_than_its_share():
    config = AugmentConfig(saturation=1, exposure=1)
    red = np.array([1, 0, 0], np.float32).reshape(3, 1, 1)
    rng = np.random.default_rng(0)
    hues = [colorsys.rgb_to_hsv(*map(float, distort(red, rng, config).ravel()))[0] for _ in range(200)]
    turns = np.array([h - 1 if h > 0.5 else h for h in hues])
    assert turns.min() < -0.09
    assert turns.max() > 0.09
    assert np.abs(turns).max() <= 0.1 + 1e-6


def test_without_photometry_the_picture_is_the_same_object():
    picture = np.zeros((3, 2, 2), np.float32)
    assert distort(picture, np.random.default_rng(0), AugmentConfig(photometric=False)) is picture


def test_the_input_size_changes_every_ten_batches():
    sizes = [draw_input_size(0, epoch, batch) for epoch in range(20) for batch in range(0, 100, 10)]
    assert set(sizes) == set(range(320, 609, 32))
    assert {draw_input_size(7, 2, batch) for batch in range(30, 40)} == {draw_input_size(7, 2, 30)}
    assert sizes[:10] != sizes[10:20]


@pytest.mark.parametrize(
    "value",
    [
        {"flip": 1.5},
        {"jitter": 1.0},
        {"smallest_scale": 0.0},
        {"smallest_scale": 2.0},
        {"hue": 0.6},
        {"saturation": 0.5},
        {"exposure": float("nan")},
    ],
)
def test_a_value_out_of_range_is_refused_by_name(value):
    with pytest.raises(RequestError, match=next(iter(value))):
        AugmentConfig(**value)
