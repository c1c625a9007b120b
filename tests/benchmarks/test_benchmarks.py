import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run(script: str, *flags: str) -> str:
    command = [sys.executable, str(BENCHMARKS / script), *flags]
    return subprocess.run(command, check=True, capture_output=True, text=True, env={"OMP_NUM_THREADS": "1"}).stdout


def test_a_part_that_was_measured_is_shown_and_not_measured_again(tmp_path: Path):
    flags = ["--device", "cpu", "--quick", "--only", "fm-nms", "--out", str(tmp_path)]
    first = run("gpu.py", *flags)
    file = tmp_path / "fm-nms.json"
    kept = json.loads(file.read_text())
    assert len(kept["part"]["findings"]) == 6
    file.write_text(json.dumps(kept | {"part": kept["part"] | {"title": "From the file"}}))
    second = run("gpu.py", *flags)
    assert "From the file" not in first
    assert "From the file" in second
    assert [line for line in first.splitlines() if line.startswith("| FM-NMS")] == [
        line for line in second.splitlines() if line.startswith("| FM-NMS")
    ]


def test_no_part_is_begun_that_the_budget_does_not_hold(tmp_path: Path):
    said = run("gpu.py", "--device", "cpu", "--quick", "--out", str(tmp_path), "--budget", "1")
    assert said.count("left out") == 8
    assert not list(tmp_path.iterdir())


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from parts import report, turns

    return report, turns


def test_ratios_are_taken_within_rounds(parts):
    _, turns = parts
    calls = []

    def value(name: str, values: list[float]):
        def take() -> float:
            calls.append(name)
            return values.pop(0)

        return take

    rates = turns.in_turn({"a": value("a", [2.0, 1.0, 9.0]), "b": value("b", [4.0, 1.0, 3.0])}, 3)
    assert calls == ["a", "b", "b", "a", "a", "b"]
    assert turns.ratio(rates["a"], rates["b"]) == turns.Spread(1.0, 0.5, 3.0)


def test_a_missed_goal_is_printed_as_missed(parts):
    _, turns = parts
    high, low = turns.Goal("at least", 0.9), turns.Goal("at most", 0.05)
    findings = [
        turns.Finding("label", "of the rest", turns.spread([0.89]), high),
        turns.Finding("label", "of the rest", turns.spread([0.90]), high),
        turns.Finding("filter", "of the rest", turns.spread([0.06]), low),
    ]
    lines = turns.table(findings).splitlines()[2:]
    assert ["MISSED" in line for line in lines] == [True, False, True]


def test_figures_of_another_machine_are_not_taken_up(parts, tmp_path: Path):
    report, turns = parts
    finding = turns.Finding("label", "of the rest", turns.spread([0.89, 0.95]), turns.Goal("at least", 0.9))
    result = report.PartResult("Labelling", "as it runs", (finding,), 12.0, None)
    report.write_results(tmp_path / "r.json", "one machine", {"label": result})
    assert report.read_results(tmp_path / "r.json", "one machine") == {"label": result}
    assert report.read_results(tmp_path / "r.json", "another") == {}


def test_many_workers_are_simulated_and_their_figures_kept(tmp_path: Path):
    flags = ["--quick", "--only", "simulation", "--out", str(tmp_path)]
    said = run("cluster.py", *flags)
    assert "| 1,024 workers: simulated time over the ideal |" in said
    assert said.splitlines()[0] in (tmp_path / "cluster-benchmarks.md").read_text()
