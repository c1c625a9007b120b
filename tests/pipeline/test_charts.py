"""Charts: what is drawn, from rows with gaps and zeros, without a warning and without a display."""

import math
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from data.errors import RequestError
from pipeline import charts
from pipeline.charts import ModelPoint, plot_run, plot_speed_accuracy


def rows(epochs):
    return [
        {
            "epoch": epoch,
            "step": 7 * epoch,
            "learning_rate": 0.001,
            "total": 3.5 / epoch,
            "region/box": 2.0 / epoch,
            "region/class": 0.0,
            "distillation/objectness": 1.5 / epoch,
            "kept_slots": 900,
        }
        for epoch in range(1, epochs + 1)
    ]


@pytest.fixture
def figure(monkeypatch):
    """The figure that the next chart is drawn on."""
    made = []

    class Kept(Figure):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            made.append(self)

    monkeypatch.setattr(charts, "Figure", Kept)
    return lambda: made[-1]


def lines(axes):
    return {line.get_label(): line for line in axes.lines}


def test_every_named_term_is_a_line_and_counts_are_none(tmp_path, figure):
    plot_run(rows(4), tmp_path / "run.png", "a run")
    losses, rate = figure().axes
    assert list(lines(losses)) == ["total", "region/box", "region/class", "distillation/objectness"]
    assert losses.get_yscale() == "log"
    assert lines(losses)["region/box"].get_xydata().tolist() == [
        [1, 2.0],
        [2, 1.0],
        [3, pytest.approx(2 / 3)],
        [4, 0.5],
    ]
    assert lines(rate)["learning_rate"].get_ydata().tolist() == [0.001] * 4
    with Image.open(tmp_path / "run.png") as image:
        assert image.width > 800


def test_validation_precision_is_drawn_in_per_cent_where_it_was_measured(tmp_path, figure):
    table = rows(6)
    table[2]["validation/ap50"], table[5]["validation/ap50"] = 0.25, 0.5
    table[5]["validation/teacher_loss"] = 1.25
    plot_run(table, tmp_path / "run.png")
    losses, precision, _ = figure().axes
    assert lines(precision)["validation/ap50"].get_xydata().tolist() == [[3, 25], [6, 50]]
    assert lines(losses)["validation/teacher_loss"].get_linestyle() == "--"


@pytest.mark.parametrize("values", [(0.284, 0.295), (1.0, 1.0), (0.0, 0.0)])
def test_the_best_precision_is_drawn_whole(tmp_path, figure, values):
    measured = [row | {"validation/ap50_voc07": value} for row, value in zip(rows(2), values, strict=True)]
    plot_run(measured, tmp_path / "run.png")
    low, high = figure().axes[1].get_ylim()
    assert low == 0
    assert high > 104 * max(values)


def test_a_single_epoch_of_zeros_and_missing_values_is_drawn(tmp_path):
    plot_run([{"epoch": 1, "total": 0.0, "region/box": None, "learning_rate": 0.0}], tmp_path / "run.jpg")
    assert (tmp_path / "run.jpg").stat().st_size > 1000


def test_a_long_run_with_many_terms_is_drawn(tmp_path, figure):
    table = [{"epoch": e, "learning_rate": 1e-3, **{f"region/{k}": 1.0 + k for k in range(12)}} for e in range(1, 161)]
    plot_run(table, tmp_path / "run.png")
    assert len(figure().axes[0].lines) == 12


def test_models_are_placed_by_speed_and_accuracy_and_named_apart(tmp_path, figure):
    points = [
        ModelPoint("teacher", 38, 0.734, 50_660_000),
        ModelPoint("student", 221, 0.603, 8_510_000),
        ModelPoint("student alone", 221, 0.594, 8_510_000),
        ModelPoint("tiny", 204, 0.542, 15_860_000),
    ]
    plot_speed_accuracy(points, tmp_path / "compared.png", "compared")
    (axes,) = figure().axes
    (discs,) = axes.collections
    assert discs.get_offsets().tolist() == [[p.fps, pytest.approx(100 * p.ap50)] for p in points]
    areas = discs.get_sizes()
    assert areas[0] / areas[3] == pytest.approx(50.66 / 15.86, rel=1e-3)
    assert sorted(text.get_text().split("\n")[0] for text in axes.texts) == sorted(p.name for p in points)
    boxes = [text.get_window_extent() for text in axes.texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_one_model_and_a_perfect_one_fit_into_the_frame(tmp_path, figure):
    plot_speed_accuracy([ModelPoint("only", 1000.0, 1.0, 10)], tmp_path / "one.png")
    bottom, top = figure().axes[0].get_ylim()
    assert bottom < 100 < top
    assert math.isfinite(bottom)


def test_nothing_to_draw_is_refused(tmp_path):
    with pytest.raises(ValueError, match="epoch"):
        plot_run([], tmp_path / "run.png")
    with pytest.raises(ValueError, match="at least one model"):
        plot_speed_accuracy([], tmp_path / "none.png")
    with pytest.raises(RequestError, match="unknown format"):
        plot_run(rows(1), tmp_path / "run.pdf")
    assert list(tmp_path.iterdir()) == []


def test_pyplot_and_its_global_state_are_not_touched(tmp_path):
    before = "matplotlib.pyplot" in sys.modules
    plot_run(rows(2), tmp_path / "run.png")
    assert ("matplotlib.pyplot" in sys.modules) == before


def test_a_chart_is_the_same_every_time(tmp_path):
    pictures = []
    for name in ("a.png", "b.png"):
        plot_run(rows(3), tmp_path / name)
        with Image.open(tmp_path / name) as image:
            pictures.append(np.asarray(image))
    assert np.array_equal(*pictures)
