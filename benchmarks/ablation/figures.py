"""The figures of the results page."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

COLOURS = ("#666666", "#3182bd", "#d94801", "#41ab5d")


def draw_curves(curves: Mapping[str, Sequence[tuple[int, float]]], out: Path) -> None:
    """Validation AP50 by optimiser step, a line for each training."""
    figure = Figure(figsize=(7, 3.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for (label, points), colour in zip(curves.items(), COLOURS, strict=False):
        axes.plot([step for step, _ in points], [100 * ap for _, ap in points], color=colour, label=label)
    axes.set_xlabel("optimiser step")
    axes.set_ylabel("validation AP50, %")
    axes.set_ylim(bottom=0)
    axes.grid(color="#e3e3e3")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(out)


def draw_unlabelled(points: Mapping[str, Sequence[float]], out: Path) -> None:
    """Test AP50 by the share of unlabelled pictures: every seed a dot, their mean a line."""
    figure = Figure(figsize=(6, 3.4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    shares = [float(label.removesuffix("%")) for label in points]
    axes.plot(shares, [statistics.mean(values) for values in points.values()], color=COLOURS[2])
    for share, values in zip(shares, points.values(), strict=True):
        axes.plot([share] * len(values), values, "o", color=COLOURS[2], alpha=0.6)
    axes.set_xlabel("unlabelled pictures that the teacher labelled, %")
    axes.set_ylabel("test AP50, %")
    axes.grid(color="#e3e3e3")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(out)
