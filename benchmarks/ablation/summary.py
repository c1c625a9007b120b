"""The few rows of the ablation that the README shows, written between two marks in it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ablation.rows import difference, figures, mean
from ablation.tables import Row, Table

BEGIN, END = "<!-- make results: begin -->", "<!-- make results: end -->"

ROWS = (
    "student alone",
    "full, labelled pictures only",
    "full, and all unlabelled pictures",
    "FM-NMS of overlapping boxes only",
    "without FM-NMS",
    "without objectness scaling",
)
HARD = "hard pseudo-labels"


def write_summary(readme: Path, table: Table, results: Mapping[str, Any], figure: str) -> None:
    """Put the table and a figure between the marks; ValueError where they are missing.

    figure: a line of Markdown. Of the hard pseudo-labels the row that validated best is shown.
    """
    text = readme.read_text()
    if BEGIN not in text or END not in text:
        raise ValueError(f"{readme} has no marks {BEGIN} and {END} to write between")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    readme.write_text("".join([before, BEGIN, "\n\n", _table(table, results), "\n\n", figure, "\n\n", END, after]))


def _table(table: Table, results: Mapping[str, Any]) -> str:
    base = figures(table.rows[0], results)
    lines = [f'| VOC07 AP50 on the test pictures, % | | against "{table.rows[0].label}" | seeds |', "|---|---|---|---|"]
    for row in _shown(table, results):
        found = figures(row, results)
        if found:
            gain = "" if row is table.rows[0] else difference(found, base)
            lines.append(f"| {row.label} | {mean(found)} | {gain} | {len(found)} |")
    return "\n".join(lines)


def _shown(table: Table, results: Mapping[str, Any]) -> Sequence[Row]:
    hard = [row for row in table.rows if row.label.startswith(HARD) and figures(row, results)]
    best = sorted(hard, key=lambda row: -max(results[name]["validation"] for name in row.tasks if name in results))[:1]
    return [*(row for label in ROWS for row in table.rows if row.label == label), *best]
