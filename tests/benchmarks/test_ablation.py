"""The ablation's bookkeeping: what is run again and what is not, and what the tables show."""

import json
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
MACHINE = "two cores"


@pytest.fixture(autouse=True)
def _scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.fixture
def tasks():
    from ablation.tasks import Task

    teacher = Task("teacher", "teacher", ("train", "--run", "teacher"))
    store = Task("store", "store", ("label", "--store", "store"), ("teacher",))
    late = Task("late/seed-0", "student", ("train", "--run", "late/seed-0"), ("store",), value=5)
    early = Task("early/seed-0", "student", ("train", "--run", "early/seed-0"), ("store",), value=1)
    return {task.name: task for task in (late, early, store, teacher)}


@pytest.fixture
def ledger(tmp_path: Path):
    from ablation.ledger import Ledger

    return Ledger.open(tmp_path / "results.json", MACHINE)


def fill(tasks, ledger, **figures: float) -> None:
    from ablation.ledger import identity

    made: dict[str, str] = {}
    for name in ("teacher", "store", "early/seed-0", "late/seed-0"):
        task = tasks[name]
        key = identity(task.command, {each: made[each] for each in task.after})
        made[name] = f"digest of {name}"
        ap50 = figures.get(name.split("/")[0], 0.5)
        ledger.put(
            name,
            {"identity": key, "made": made[name], "kind": task.kind, "pool": "carla", "seconds": 60.0}
            | ({"test": {"ap50": ap50}, "validation": ap50} if task.kind == "student" else {}),
        )


def test_what_a_training_needs_comes_before_it_and_the_most_valuable_first(tasks) -> None:
    from ablation.experiments import in_order

    order = [task.name for task in in_order(tasks, ["late/seed-0", "early/seed-0"])]
    assert order == ["teacher", "store", "early/seed-0", "late/seed-0"]


def test_results_are_found_again_by_another_process(tasks, ledger) -> None:
    from ablation.ledger import Ledger
    from ablation.valid import settled

    fill(tasks, ledger)
    again = Ledger.open(ledger.file, MACHINE)
    assert settled(tasks, again).keys() == tasks.keys()


def test_nothing_holds_that_was_built_on_another_teacher(tasks, ledger) -> None:
    from ablation.valid import settled

    fill(tasks, ledger)
    ledger.put("teacher", ledger.results["teacher"] | {"made": "another digest"})
    assert settled(tasks, ledger).keys() == {"teacher"}


def test_a_training_with_other_flags_is_run_again_and_nothing_else(tasks, ledger) -> None:
    from dataclasses import replace

    from ablation.valid import settled

    fill(tasks, ledger)
    changed = replace(tasks["early/seed-0"], command=("train", "--run", "early/seed-0", "--seed", "1"))
    assert settled(tasks | {changed.name: changed}, ledger).keys() == tasks.keys() - {changed.name}


def test_a_file_of_another_machine_is_refused(tasks, ledger) -> None:
    from ablation.ledger import Ledger

    fill(tasks, ledger)
    with pytest.raises(SystemExit, match="no table mixes machines"):
        Ledger.open(ledger.file, "four cores")


def test_a_broken_off_write_leaves_the_last_results(tasks, ledger) -> None:
    fill(tasks, ledger)
    before = ledger.file.read_text()
    ledger.file.with_suffix(".new").write_text("half")
    assert json.loads(ledger.file.read_text()) == json.loads(before)


def test_the_table_has_mean_spread_and_the_difference_seed_by_seed() -> None:
    from ablation.page import _rows
    from ablation.tables import Row, Table

    alone = Row("alone", ("alone/seed-0", "alone/seed-1"), "59.4")
    full = Row("full", ("full/seed-0", "full/seed-1"))
    missing = Row("rival", ("rival/seed-0",))
    figures = {"alone/seed-0": 0.50, "alone/seed-1": 0.60, "full/seed-0": 0.54, "full/seed-1": 0.64}
    results = {name: {"test": {"ap50": ap50}, "validation": 0.7} for name, ap50 in figures.items()}
    lines = _rows(Table("t", "T", "", (alone, full, missing), "alone"), results).splitlines()[2:]
    assert lines == [
        "| alone | 55.0 ± 7.1 |  | 2 | 70.0 | 59.4 |",
        "| full | 59.0 ± 7.1 | +4.0 ± 0.0 | 2 | 70.0 |  |",
        "| rival | not run yet | | | |  |",
    ]


def test_boxes_seen_in_several_views_become_one() -> None:
    import numpy as np
    from ablation.labels import _merge, _views

    from data.views import stretch_view

    base = stretch_view(100, 100, 96, 96)
    views = list(_views(base))
    boxes = np.array([[10.0, 10, 30, 30], [12, 10, 32, 30], [60, 60, 80, 80], [61, 60, 81, 80]])
    objectness = np.array([0.9, 0.6, 0.6, 0.3])
    classes = np.array([[1.0, 0], [1, 0], [0, 1], [1, 0]])  # the last two overlap, but are of two classes
    of_view = np.array([0, 2, 0, 0])
    merged, scores, probabilities = _merge(boxes, objectness, classes, of_view, views, base)
    assert merged.shape == (3, 4)
    assert np.allclose(merged[0], [10.8, 10, 30.8, 30])  # weighted 0.9 to 0.6
    shown = 6 if all(_visible(view, base, merged[0]) for view in views) else 4
    assert scores[0] == pytest.approx((0.9 + 0.6) / shown)
    assert probabilities.argmax(axis=1).tolist() == [0, 1, 0]


def test_no_box_is_surer_than_the_views_that_saw_it() -> None:
    """A zoomed view shows the one box of an object and not, by a hair, the other: it counts for both."""
    import numpy as np
    from ablation.labels import _merge, _shows, _views

    from data.views import stretch_view

    base = stretch_view(100, 100, 96, 96)
    views = list(_views(base))
    lefts = np.arange(0.0, 20.0, 0.05)
    seen = np.stack([_shows(view, base, np.stack([lefts + 10, np.full_like(lefts, 50)], axis=1)) for view in views])
    edge = int(np.flatnonzero(seen.all(axis=0))[0])
    assert edge > 0
    boxes = np.array([[left, 40, left + 20, 60] for left in [*[lefts[edge - 1]] * 4, lefts[edge], lefts[edge]]])
    plain, zoomed = (np.flatnonzero(seen[:, edge - 1] == whole).tolist() for whole in (True, False))
    of_view = np.array([*plain, *zoomed])
    assert len(of_view) == 6
    _, scores, _ = _merge(boxes, np.array([1.0] * 4 + [0.99] * 2), np.ones((6, 1)), of_view, views, base)
    assert scores.tolist() == [pytest.approx((4 + 2 * 0.99) / 6)]


def _visible(view, base, box) -> bool:
    import numpy as np
    from ablation.labels import _shows

    return bool(_shows(view, base, np.array([[(box[0] + box[2]) / 2, (box[1] + box[3]) / 2]]))[0])


def test_the_readme_shows_the_rows_and_keeps_the_rest(tmp_path: Path) -> None:
    from ablation.summary import BEGIN, END, write_summary
    from ablation.tables import Row, Table

    rows = [
        Row("student alone", ("alone/seed-0", "alone/seed-1")),
        Row("greedy FM-NMS", ("greedy/seed-0",)),
        Row("full, and all unlabelled pictures", ("full/seed-0", "full/seed-1")),
        Row("without FM-NMS", ("off/seed-0",)),
        Row("hard pseudo-labels above 0.3", ("hard-3/seed-0",)),
        Row("hard pseudo-labels above 0.5", ("hard-5/seed-0",)),
    ]
    ap50 = {"alone/seed-0": 0.1, "alone/seed-1": 0.2, "full/seed-0": 0.3, "full/seed-1": 0.5, "greedy/seed-0": 0.9}
    validated = {"hard-3/seed-0": (0.4, 0.2), "hard-5/seed-0": (0.35, 0.3)}
    results = {name: {"test": {"ap50": value}, "validation": value} for name, value in ap50.items()}
    results |= {name: {"test": {"ap50": test}, "validation": best} for name, (test, best) in validated.items()}
    readme = tmp_path / "README.md"
    readme.write_text(f"above\n\n{BEGIN}\nwhat was\n{END}\n\nbelow\n")
    for _ in range(2):
        write_summary(readme, Table("distillation", "", "", tuple(rows), ""), results, "![figure](figure.png)")
    lines = readme.read_text().splitlines()
    assert lines[0] == "above"
    assert lines[-1] == "below"
    shown = [line for line in lines if line.startswith("| ")][1:]
    assert shown == [
        "| student alone | 15.0 ± 7.1 |  | 2 |",
        "| full, and all unlabelled pictures | 40.0 ± 14.1 | +25.0 ± 7.1 | 2 |",
        "| hard pseudo-labels above 0.5 | 35.0 | +25.0 | 1 |",
    ]
    readme.write_text("no marks")
    with pytest.raises(ValueError, match="no marks"):
        write_summary(readme, Table("distillation", "", "", tuple(rows), ""), results, "")
