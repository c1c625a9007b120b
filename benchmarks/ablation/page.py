"""docs/results.md and its figures, from the ledgers; no number in it was typed in."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablation.experiments import STORES, Ablation
from ablation.figures import draw_curves, draw_unlabelled
from ablation.ledger import Ledger
from ablation.pictures import draw_detections, draw_twins
from ablation.pool import CARLA_LEFT_OUT, CARLA_SMALLEST, Pool
from ablation.profile import Profile
from ablation.recall import CONFIDENT, MATCHED
from ablation.rows import difference, figures, mean
from ablation.tables import Table
from ablation.valid import settled

MINUTE = 60
NOTES = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Chapter:
    """What was measured in one profile, and what there is to measure. work: where its runs lie, or lay."""

    profile: Profile
    ledger: Ledger
    ablation: Ablation
    carla: Pool
    work: Path


CURVES = {
    "student alone": "carla/alone/seed-0",
    "full, labelled only": "carla/full-0/seed-0",
    "full, and all unlabelled pictures": "carla/full/seed-0",
}

SEEN = {
    "strong teacher": "carla/teacher-strong",
    "student alone": "carla/alone/seed-0",
    "full, and all unlabelled pictures": "carla/full/seed-0",
}

HEAD = """# Ablation

Written by `make results` (`python benchmarks/results.py`); nothing here was typed in. Figures are VOC07 AP50 in % on
test pictures that neither teacher nor student has seen, of the epoch that validated best; ± is the standard deviation
over seeds, of the difference seed by seed where there is a difference."""

INTRODUCTION = """## Profile {profile.name}

{done} of {tasks} tasks are done. Machine: {machine}.

Students: F-YOLO at {profile.student_width:g} of its width, {profile.steps} steps of {profile.batch_size} pictures;
teachers: YOLOv2 at {profile.teacher_width:g} of its width, {profile.teacher_steps} steps; input {profile.input_size},
stretched; {profile.jobs} trainings at once of {profile.threads} threads.{reduced}"""

REDUCED = """ **Reduced** in input and width to what a CPU can do; the full form is
`make results PROFILE=gpu`."""

DATA = """**carla**: {carla[labelled]} annotated and {carla[unlabelled]} unlabelled training pictures,
{carla[validation]} to validate on, {carla[test]} to test on, {carla[left out]} left out in the gaps between them. Split
by contiguous blocks of the drives: {twins:.1%} of the test pictures have a near-twin in training (a place passed
twice); a random split would have {at_random:.1%}. {carla[difficult]} objects smaller than {smallest:g}×{smallest:g}
pixels (of 512×304) count as difficult: neither learnt nor measured by; the class {left_out} is left out, for too few
are larger. **bccd**: {bccd[labelled]} annotated and {bccd[unlabelled]} unlabelled, {bccd[validation]} to validate on,
{bccd[test]} to test on."""

COST = """### Cost

Minutes to label once ({label:.0f} s, measured) and train k students of {pictures} pictures from the store, against k
trainings with the teacher in the loop: {store:.1f} against {loop:.1f} pictures per second, measured in turn; meanwhile
other processes had {others:.1%} of the cores' time.

| students | label once, then train | teacher in the loop | ratio |
|---|---|---|---|"""

COMMANDS = """### Commands

Run in the work folder; paths are below it.

| task | command | seconds |
|---|---|---|"""

LABELS = """### The soft labels themselves

Of the annotated objects of the training pictures that count, {carla[labelled]} annotated and {carla[unlabelled]}
unlabelled: the share that has a slot of its class with an objectness of {confident:g} or more and an IoU of
{matched:g} or more, and how many such slots each has. FM-NMS should bring the latter to 1 and leave the former alone.

| FM-NMS | found | slots for each found | slots kept for each picture |
|---|---|---|---|"""

TEACHERS = """### The teachers themselves

| carla | AP50 | validation | trained in |
|---|---|---|---|"""


def write_page(file: Path, chapters: Sequence[Chapter]) -> None:
    """results.md and, beside it, its figures: a chapter for each profile that has results."""
    parts = [HEAD, *(_chapter(file.parent, chapter) for chapter in chapters if chapter.ledger.results)]
    file.write_text("\n\n".join(parts) + "\n")


def _chapter(out: Path, chapter: Chapter) -> str:
    """Runs of an earlier teacher, or of another command than would be run now, are left out."""
    profile, ledger, ablation = chapter.profile, chapter.ledger, chapter.ablation
    results = {name: ledger.results[name] for name in settled(ablation.tasks, ledger)}
    parts = [_introduction(ledger, profile, len(results), len(ablation.tasks)), _data(ledger)]
    curves = {label: results[name]["curve"] for label, name in CURVES.items() if name in results}
    if curves:
        draw_curves(curves, out / f"results-{profile.name}-curves.png")
        parts.append(f"![Validation AP50 by optimiser step](results-{profile.name}-curves.png)")
    for table in ablation.tables:
        if any(name in results for row in table.rows for name in row.tasks):
            parts.append(_table(table, results))
    unlabelled = next(table for table in ablation.tables if table.key == "unlabelled")
    points = {row.label: found for row in unlabelled.rows if (found := figures(row, results))}
    if len(points) == len(unlabelled.rows):
        draw_unlabelled(points, out / f"results-{profile.name}-unlabelled.png")
        parts.append(f"![AP50 by share of unlabelled pictures](results-{profile.name}-unlabelled.png)")
    parts += [
        _labels(ledger),
        _notes(profile),
        _pictures(out, chapter),
        _teachers(results),
        _cost(results, ledger),
        _commands(results),
    ]
    return "\n\n".join(part for part in parts if part)


def _introduction(ledger: Ledger, profile: Profile, done: int, tasks: int) -> str:
    return INTRODUCTION.format(
        profile=profile,
        machine=ledger.machine,
        done=done,
        tasks=tasks,
        reduced="" if profile.name == "gpu" else REDUCED,
    )


def _data(ledger: Ledger) -> str:
    pools = ledger.facts["pools"]
    twins, at_random = pools["carla"]["twins"], pools["carla"]["twins of a random split"]
    return DATA.format(
        carla=pools["carla"],
        bccd=pools["bccd"],
        twins=twins,
        at_random=at_random,
        smallest=CARLA_SMALLEST,
        left_out=", ".join(CARLA_LEFT_OUT),
    )


def _table(table: Table, results: Mapping[str, Any]) -> str:
    return f"### {table.title}\n\n{table.note}\n\n{_rows(table, results)}"


def _rows(table: Table, results: Mapping[str, Any]) -> str:
    base = figures(next(row for row in table.rows if row.label == table.base), results)
    lines = [f"| | AP50 | against “{table.base}” | seeds | validation | the paper |", "|---|---|---|---|---|---|"]
    for row in table.rows:
        found = figures(row, results)
        if not found:
            lines.append(f"| {row.label} | not run yet | | | | {row.paper} |")
            continue
        validation = statistics.mean(100 * results[name]["validation"] for name in row.tasks if name in results)
        gain = "" if row.label == table.base or not base else difference(found, base)
        lines.append(f"| {row.label} | {mean(found)} | {gain} | {len(found)} | {validation:.1f} | {row.paper} |")
    return "\n".join(lines)


def _pictures(out: Path, chapter: Chapter) -> str:
    """Drawn anew where the runs are at hand; otherwise those of an earlier time, if there are any."""
    seen, twins = out / f"results-{chapter.profile.name}-boxes.jpg", out / "results-twins.jpg"
    runs = [(label, chapter.work / name) for label, name in SEEN.items()]
    draw_detections(chapter.carla, runs, seen)
    draw_twins(chapter.carla, twins)
    parts = [f"![Test pictures: annotation, teacher, students]({seen.name})"] if seen.exists() else []
    parts.append(f"![Pairs of test and training pictures that just are, or are not, near-twins]({twins.name})")
    return "\n\n".join(["### What they see, and what counts as a near-twin", *parts])


def _labels(ledger: Ledger) -> str:
    found = ledger.facts.get("labels", {})
    lines = [
        f"| {label} | {100 * found[name]['found']:.1f} % | {found[name]['times']:.2f} | {found[name]['slots']:.1f} |"
        for label, name in STORES.items()
        if name in found
    ]
    carla = ledger.facts["pools"]["carla"]
    return "\n".join([LABELS.format(carla=carla, confident=CONFIDENT, matched=MATCHED), *lines]) if lines else ""


def _notes(profile: Profile) -> str:
    """What people made of the tables, in words: the figures are in them."""
    notes = NOTES / f"notes-{profile.name}.md"
    return notes.read_text().rstrip() if notes.exists() else ""


def _teachers(results: Mapping[str, Any]) -> str:
    lines = [
        f"| {name.removeprefix('carla/teacher-')} | {100 * result['test']['ap50']:.1f} | "
        f"{100 * result['validation']:.1f} | {result['seconds'] / MINUTE:.0f} min |"
        for name, result in results.items()
        if result["kind"] == "teacher"
    ]
    return "\n".join([TEACHERS, *lines]) if lines else ""


def _cost(results: Mapping[str, Any], ledger: Ledger) -> str:
    speed = ledger.facts.get("cost")
    store, student = results.get("carla/store"), results.get("carla/full/seed-0")
    if not (speed and store and student):
        return ""
    label, pictures = store["seconds"], student["pictures"]
    once, loop = pictures / speed["store"], pictures / speed["loop"]
    lines = [
        f"| {k} | {(label + k * once) / MINUTE:.1f} | {k * loop / MINUTE:.1f} | {k * loop / (label + k * once):.2f} |"
        for k in (1, 2, 5, 10)
    ]
    return "\n".join([COST.format(label=label, pictures=pictures, **speed), *lines])


def _commands(results: Mapping[str, Any]) -> str:
    lines = [
        f"| {name} | `distill {' '.join(result['command'])}` | {result['seconds']:.0f} |"
        for name, result in sorted(results.items())
        if result["kind"] in ("teacher", "store", "student")
    ]
    return "\n".join([COMMANDS, *lines]) if lines else ""
