"""Charts of a run and of a comparison, drawn without a display and without matplotlib's global state."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, NullLocator, ScalarFormatter
from matplotlib.transforms import Bbox

from pipeline.picture_file import save_picture

_GROUND_TRUTH = ("#08519c", "#3182bd", "#6baed6", "#41ab5d", "#74c476", "#9e9ac8")
_TEACHER = ("#d94801", "#fd8d3c", "#e7298a", "#fdae6b")
_OTHER = ("#1b9e77", "#7570b3", "#a6761d", "#666666")
_INK, _GRID = "#222222", "#e3e3e3"


@dataclass(frozen=True, slots=True)
class ModelPoint:
    """A model in a comparison. fps: frames per second; ap50: a fraction, 0 to 1; parameters: their number."""

    name: str
    fps: float
    ap50: float
    parameters: int


def plot_run(rows: Sequence[Mapping[str, Any]], out: Path, title: str = "") -> None:
    """Draw the rows of a run's metrics.jsonl into `out` (PNG or JPEG): losses, validation AP, learning rate by epoch.

    Each row has `epoch`. Lines are drawn of `total`, `region/…` (ground truth) and `distillation/…` (teacher), with
    `validation/…` dashed among them, on a log scale, which leaves out zeros; of `validation/ap…`, as fractions; and of
    `learning_rate`. A key may be missing from rows. Raises ValueError without rows, RequestError and OSError as
    `save_picture`.
    """
    if not rows:
        raise ValueError("A run without an epoch has no curves.")
    precisions = _keys(rows, "validation/ap")
    panels = ["loss", *(["precision"] if precisions else []), "rate"]
    heights = {"loss": 3.2, "precision": 2.2, "rate": 1.0}
    figure = Figure(figsize=(9, 1.3 + 1.25 * sum(heights[panel] for panel in panels)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    all_axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=[heights[p] for p in panels])
    axes: dict[str, Axes] = dict(zip(panels, all_axes[:, 0], strict=True))

    _draw_losses(axes["loss"], rows)
    if precisions:
        for key, colour in zip(precisions, _cycled((_INK, *_OTHER), len(precisions)), strict=True):
            _line(axes["precision"], rows, key, colour, factor=100)
        axes["precision"].set_ylabel("validation AP, %")
        axes["precision"].set_ylim(0, 1.08 * axes["precision"].dataLim.y1 or 1)  # from zero, the best point whole
    _line(axes["rate"], rows, "learning_rate", _INK)
    _log_scale(axes["rate"])
    axes["rate"].yaxis.set_minor_formatter(NullFormatter())
    axes["rate"].set_ylabel("learning rate")
    axes["rate"].set_xlabel("epoch")
    axes["rate"].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    for name, panel in axes.items():
        _tidy(panel)
        if name != "rate" and panel.lines:
            panel.legend(loc="upper left", bbox_to_anchor=(1.0, 1.02), frameon=False, fontsize=9)
    _finish(figure, title, out)


def plot_speed_accuracy(points: Sequence[ModelPoint], out: Path, title: str = "") -> None:
    """Draw models by speed (log scale) and AP50 into `out` (PNG or JPEG); the area of a disc goes by the parameters.

    Raises ValueError without points, RequestError and OSError as `save_picture`.
    """
    if not points:
        raise ValueError("A comparison needs at least one model.")
    figure = Figure(figsize=(8, 5.2), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    largest = max(point.parameters for point in points)
    colours = _cycled(("#d94801", "#3182bd", "#41ab5d", "#756bb1", "#636363", "#e7298a"), len(points))
    sizes = [max(20.0, 1500 * point.parameters / largest) for point in points]
    speeds, precisions = [point.fps for point in points], [100 * point.ap50 for point in points]
    axes.scatter(speeds, precisions, s=sizes, c=colours, alpha=0.85, edgecolors="white", linewidths=1.5, zorder=3)

    axes.set_xscale("log")
    axes.set_xlim(min(speeds) / 1.6, max(speeds) * 1.6)
    spread = max(precisions) - min(precisions)
    axes.set_ylim(
        max(0.0, min(precisions) - max(5.0, 0.3 * spread)), min(104.0, max(precisions) + max(5.0, 0.3 * spread))
    )
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set_xlabel("frames per second, batch 1, decoded frame to boxes")
    axes.set_ylabel("AP50, %")
    _tidy(axes)
    _name_points(figure, axes, points, sizes)
    _finish(figure, title, out)


def _draw_losses(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    truth, teacher = _keys(rows, "region/"), _keys(rows, "distillation/")
    held_out = [key for key in _keys(rows, "validation/") if not key.startswith("validation/ap")]
    _line(axes, rows, "total", _INK, width=2.2)
    for keys, colours in ((truth, _GROUND_TRUTH), (teacher, _TEACHER)):
        for key, colour in zip(keys, _cycled(colours, len(keys)), strict=True):
            _line(axes, rows, key, colour)
    for key, colour in zip(held_out, _cycled(_OTHER, len(held_out)), strict=True):
        _line(axes, rows, key, colour, style="--")
    _log_scale(axes)
    axes.set_ylabel("loss, mean of the epoch")


def _line(
    axes: Axes,
    rows: Sequence[Mapping[str, Any]],
    key: str,
    colour: str,
    *,
    factor: float = 1,
    width: float = 1.6,
    style: str = "-",
) -> None:
    known = [(row["epoch"], factor * row[key]) for row in rows if row.get(key) is not None]
    if not known:
        return
    epochs, values = np.array(known, np.float64).T
    # A few epochs, or validation every so many, are points to be seen; a long run is a line.
    marker = "o" if len(known) <= 30 else ""
    axes.plot(epochs, values, style, color=colour, linewidth=width, marker=marker, markersize=4, label=key)


def _log_scale(axes: Axes) -> None:
    # A scale without any positive value has no limits, and matplotlib warns.
    if any((np.asarray(line.get_ydata()) > 0).any() for line in axes.lines):
        axes.set_yscale("log", nonpositive="mask")


def _name_points(figure: Figure, axes: Axes, points: Sequence[ModelPoint], sizes: Sequence[float]) -> None:
    """Write each model's name beside its disc, where it covers no other name or disc and stays inside the axes."""
    figure.draw_without_rendering()
    frame, taken = axes.get_window_extent(), list[Bbox]()
    for point, size in zip(points, sizes, strict=True):
        x, y = axes.transData.transform((point.fps, 100 * point.ap50))
        radius = size**0.5 / 2 * figure.dpi / 72
        taken.append(Bbox.from_extents(x - radius, y - radius, x + radius, y + radius))
    for point, size in sorted(zip(points, sizes, strict=True), key=lambda pair: -pair[0].ap50):
        reach = (size**0.5) / 2 + 4
        places = [(0, reach, "center", "bottom"), (reach, 0, "left", "center")]
        places += [(0, -reach, "center", "top"), (-reach, 0, "right", "center")]
        for x, y, horizontal, vertical in places:
            text = axes.annotate(
                f"{point.name}\n{point.parameters / 1e6:.1f} M, {point.fps:.3g} FPS",
                (point.fps, 100 * point.ap50),
                (x, y),
                textcoords="offset points",
                ha=horizontal,
                va=vertical,
                fontsize=9,
                color=_INK,
            )
            extent = text.get_window_extent()
            inside = frame.x0 <= extent.x0 and extent.x1 <= frame.x1 and frame.y0 <= extent.y0 and extent.y1 <= frame.y1
            if (inside and not any(extent.overlaps(other) for other in taken)) or (x, y) == places[-1][:2]:
                taken.append(extent)
                break
            text.remove()


def _tidy(axes: Axes) -> None:
    axes.grid(True, which="major", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#999999")
    axes.tick_params(colors="#555555", which="both", labelsize=9)


def _finish(figure: Figure, title: str, out: Path) -> None:
    if title:
        figure.suptitle(title, fontsize=11, color=_INK)
    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels = canvas.buffer_rgba()  # type: ignore[no-untyped-call]
    save_picture(np.asarray(pixels)[..., :3].copy(), out)


def _keys(rows: Sequence[Mapping[str, Any]], prefix: str) -> list[str]:
    """The keys with a prefix, in the order they first come up."""
    return list(dict.fromkeys(key for row in rows for key in row if key.startswith(prefix)))


def _cycled(colours: Sequence[str], count: int) -> list[str]:
    return [colours[index % len(colours)] for index in range(count)]
