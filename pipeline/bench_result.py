"""What `distill bench` found of each detector, as a table and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.evaluate import Evaluation
from stages.bench.cost import Cost
from stages.bench.detect import Predictor
from stages.bench.speed import SpeedReport


@dataclass(frozen=True, slots=True)
class Candidate:
    """A detector under measurement. trained: False for random weights, of which only the speed means something."""

    name: str
    predictor: Predictor
    cost: Cost
    trained: bool


@dataclass(frozen=True, slots=True)
class Row:
    """What was measured of one detector."""

    candidate: Candidate
    speed: SpeedReport
    accuracy: Evaluation | None


def row_as_json(row: Row) -> dict[str, Any]:
    """Everything about a detector, for scripts."""
    candidate, accuracy = row.candidate, row.accuracy
    return {
        "name": candidate.name,
        "trained": candidate.trained,
        "input": [candidate.predictor.height, candidate.predictor.width],
        "cost": asdict(candidate.cost),
        "speed": asdict(row.speed),
        "voc": None if accuracy is None else asdict(accuracy.voc),
        "coco": None if accuracy is None or accuracy.coco is None else asdict(accuracy.coco),
        "rejected": [] if accuracy is None else [list(item) for item in accuracy.rejected],
    }


def table(rows: Sequence[Row], machine: str, computed: str, measured_on: str, absent: Sequence[str]) -> str:
    """The rows for people. computed: precision and device. measured_on: a sentence, or "". absent: listed pictures."""
    header = (
        "model",
        "input",
        "VOC07 AP50",
        "AP50",
        "COCO AP",
        "FPS",
        "median ms",
        "p95 ms",
        "FPS without NMS",
        "M params",
        "GFLOP",
        "MB",
    )
    cells = [header]
    for row in rows:
        voc = None if row.accuracy is None else row.accuracy.voc
        coco = None if row.accuracy is None else row.accuracy.coco
        complete, cost = row.speed.complete, row.candidate.cost
        cells.append(
            (
                row.candidate.name,
                f"{row.candidate.predictor.height}×{row.candidate.predictor.width}",
                _percent(None if voc is None else voc.map_11_point),
                _percent(None if voc is None else voc.map_all_point),
                _percent(None if coco is None else coco.ap),
                f"{complete.fps:.1f}",
                f"{complete.median_ms:.1f}",
                f"{complete.p95_ms:.1f}",
                f"{row.speed.without_postprocessing.fps:.1f}",
                f"{cost.parameters / 1e6:.2f}",
                f"{cost.gflop:.2f}",
                f"{cost.nbytes / 1e6:.1f}",
            )
        )
    widths = [max(len(line[i]) for line in cells) for i in range(len(header))]
    lines = [
        "  ".join(
            text.ljust(width) if i == 0 else text.rjust(width)
            for i, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in cells
    ]
    lines.append(f"Batch 1, from decoded frame to boxes, {computed}.")
    lines += [line for line in (measured_on, machine) if line]
    if absent:
        lines.append(f"{len(absent)} listed pictures are absent, the first is {absent[0]}")
    for row in rows:
        if row.accuracy is not None and row.accuracy.rejected:
            lines.append(f"{row.candidate.name}: {len(row.accuracy.rejected)} pictures could not be decoded")
        if row.accuracy is not None and row.accuracy.voc.without_truth:
            lines.append(f"no object of {', '.join(row.accuracy.voc.without_truth)}: left out of the means")
    return "\n".join(lines)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"
