"""Boxes where they belong, labels that can be read, files whole or absent."""

import numpy as np
import pytest
from PIL import Image

from data.errors import RequestError
from pipeline.drawing import draw_boxes, side_by_side
from pipeline.palette import class_colour, text_colour
from pipeline.picture_file import save_picture

CLASSES = ["cell", "plate"]


def grey(height=480, width=640):
    return np.full((height, width, 3), 128, np.uint8)


def drawn(picture, *boxes, labels=None, scores=None, caption=None):
    return draw_boxes(
        picture,
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(labels if labels is not None else [0] * len(boxes)),
        None if scores is None else np.array(scores, np.float32),
        CLASSES,
        caption,
    )


def pixels_of(picture, colour):
    """Rows and columns of a colour."""
    return np.nonzero((picture == colour).all(axis=-1))


def test_the_outline_ends_exactly_at_the_box():
    rows, columns = pixels_of(drawn(grey(), (100, 150, 300, 400)), class_colour(0))
    assert (columns.min(), columns.max()) == (100, 299)
    assert rows.max() == 399
    assert rows.min() < 150  # the label stands above
    assert drawn(grey(), (100, 150, 300, 400))[275, 200].tolist() == [128, 128, 128]  # the inside is left


def test_the_picture_given_is_not_drawn_on():
    picture = grey()
    drawn(picture, (100, 150, 300, 400), caption="x")
    assert (picture == 128).all()


def test_classes_have_colours_of_their_own():
    picture = drawn(grey(), (10, 100, 200, 300), (300, 100, 500, 300), labels=[0, 1])
    assert pixels_of(picture, class_colour(0))[1].max() < 250 < pixels_of(picture, class_colour(1))[1].min()


def test_a_weak_box_is_fainter_and_lies_below_a_strong_one():
    picture = drawn(grey(), (50, 200, 350, 400), (150, 100, 450, 300), labels=[0, 1], scores=[1.0, 0.05])
    assert picture[300, 51].tolist() == list(class_colour(0))
    weak = np.abs(picture[150, 448].astype(int) - 128).sum()
    assert 0 < weak < np.abs(np.array(class_colour(1)) - 128).sum() / 2
    assert picture[201, 300].tolist() == list(class_colour(0))
    reverse = drawn(grey(), (150, 100, 450, 300), (50, 200, 350, 400), labels=[1, 0], scores=[0.05, 1.0])
    assert np.array_equal(reverse, picture)


@pytest.mark.parametrize(
    "box",
    [(-50, -50, 700, 500), (0, 0, 640, 480), (639.9, 479.9, 640, 480), (300, 200, 300, 200), (400, 300, 200, 100)],
)
def test_boxes_at_or_over_the_edge_without_area_or_turned_round_are_drawn(box):
    picture = drawn(grey(), box, scores=[0.9], caption="edge")
    assert picture.shape[1] == 640
    assert (picture[:480] != 128).any()


def test_labels_of_neighbours_do_not_cover_each_other():
    # The same place for a second class: its label moves, both can be read.
    both = drawn(grey(), (100, 100, 300, 300), (100, 100, 300, 300), labels=[0, 1])
    of_second = pixels_of(both, class_colour(1))
    assert len(of_second[0]) > 0
    rows_first = pixels_of(both, class_colour(0))[0]
    assert rows_first.min() < 100 <= of_second[0].min()


def test_labels_of_a_crowd_leave_the_picture_to_be_seen():
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 400, (300, 2))
    boxes = np.concatenate([corners, corners + 1], axis=1)
    picture = drawn(grey(), *boxes, scores=rng.random(300))
    assert (picture != 128).any(axis=-1).mean() < 0.25


def test_a_small_picture_is_enlarged_by_a_whole_factor_and_its_boxes_with_it():
    picture = drawn(grey(60, 100), (20, 30, 80, 50))
    assert picture.shape == (300, 500, 3)
    rows, columns = pixels_of(picture, class_colour(0))
    assert (columns.min(), columns.max(), rows.max()) == (100, 399, 249)


def test_labels_and_lines_grow_with_the_picture():
    def thickness(height, width):
        picture = drawn(grey(height, width), (width / 4, height / 4, width / 2, height / 2))
        return (picture[3 * height // 8, : width * 3 // 8] == class_colour(0)).all(axis=-1).sum()

    assert thickness(480, 640) == 3
    assert thickness(2880, 3840) > 15


def test_the_strip_counts_the_boxes_of_each_class():
    plain = drawn(grey(), (10, 100, 200, 300), labels=[1])
    captioned = drawn(grey(), (10, 100, 200, 300), labels=[1], caption="what it is")
    assert np.array_equal(captioned[:480], plain)
    strip = captioned[480:]
    assert 10 < len(strip) < 60
    assert len(pixels_of(strip, class_colour(1))[0]) > 20
    assert len(pixels_of(strip, class_colour(0))[0]) == 0
    long = drawn(grey(), (10, 100, 200, 300), labels=[1], caption="very long " * 100)
    assert long.shape[1] == 640


def test_no_boxes_no_marks():
    assert np.array_equal(drawn(grey()), grey())
    assert np.array_equal(drawn(grey(), scores=[]), grey())


def test_a_sheet_holds_every_picture_unchanged_under_its_caption():
    first, second, third = (np.full((40 + 10 * n, 90, 3), class_colour(n), np.uint8) for n in (1, 2, 3))
    sheet = side_by_side([("first", first), ("second", second), ("third", third)], columns=2)
    corners = [pixels_of(sheet, class_colour(n)) for n in (1, 2, 3)]
    for n, (rows, columns) in enumerate(corners, 1):
        assert (np.ptp(rows) + 1, np.ptp(columns) + 1, len(rows)) == (40 + 10 * n, 90, (40 + 10 * n) * 90)
    tops = [rows.min() for rows, _ in corners]
    lefts = [columns.min() for _, columns in corners]
    assert tops[0] == tops[1] < tops[2]
    assert lefts[0] == lefts[2] < lefts[1]
    assert (sheet[: tops[0]] < 100).any()  # the captions' ink


def test_large_pictures_are_reduced_on_a_sheet_and_none_is_refused():
    sheet = side_by_side([("large", grey(3000, 4000)), ("a" * 500, grey(30, 40))])
    assert sheet.shape[0] < 1000
    assert sheet.shape[1] < 2100
    with pytest.raises(ValueError, match="at least one"):
        side_by_side([])


def test_the_palette_repeats_and_tells_classes_apart():
    colours = [class_colour(index) for index in range(80)]
    assert colours == [class_colour(index) for index in range(80)]
    assert len(set(colours)) == 80
    near = [sum(abs(a - b) for a, b in zip(colours[i], colours[j], strict=True)) for i in range(10) for j in range(i)]
    assert min(near) > 75


def test_text_is_black_on_light_and_white_on_dark():
    assert text_colour((255, 255, 0)) == (0, 0, 0)
    assert text_colour((0, 0, 160)) == (255, 255, 255)


@pytest.mark.parametrize(("name", "tolerance"), [("a.png", 0), ("a.jpg", 6), ("a.JPEG", 6)])
def test_a_picture_is_saved_by_its_ending(tmp_path, name, tolerance):
    picture = drawn(grey(), (100, 100, 300, 300))
    save_picture(picture, tmp_path / name)
    with Image.open(tmp_path / name) as image:
        loaded = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(loaded - picture).mean() <= tolerance
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_an_interrupted_write_leaves_the_old_picture_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    save_picture(grey(), path)
    before = path.read_bytes()

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(OSError, match="No space"):
        save_picture(grey() * 0, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_saved_is_said(tmp_path):
    with pytest.raises(RequestError, match=r"unknown format.*\.png"):
        save_picture(grey(), tmp_path / "a.gif")
    with pytest.raises(RequestError, match="does not exist"):
        save_picture(grey(), tmp_path / "nowhere" / "a.png")
