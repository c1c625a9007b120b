"""The page of benchmarks/ranks.py says what its figures say."""

from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.parametrize(
    ("two", "row", "verdict"),
    [
        ((52.0, 49.0, 52.0), "| two minus one | +2.0 | -3.0 | +2.0 | +0.3 ± 2.9 | |", "is within what"),
        ((47.0, 49.0, 47.0), "| two minus one | -3.0 | -3.0 | -3.0 | -3.0 ± 0.0 | |", "is **NOT within** what"),
    ],
)
def test_the_difference_is_taken_seed_by_seed(
    monkeypatch: pytest.MonkeyPatch, two: tuple[float, ...], row: str, verdict: str
):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from ranks import page

    measured = {1: (50.0, 52.0, 50.0), 2: two}
    found = {
        f"seed-{seed}/ranks-{ranks}": {"ap50": ap50, "seconds": 60.0 / ranks, "steps": 324}
        for ranks, values in measured.items()
        for seed, ap50 in enumerate(values)
    }
    text = page("a machine", found, 3, 8)
    assert "| 1 rank | 50.0 | 52.0 | 50.0 | 50.7 ± 1.2 | 60 |" in text
    assert row in text
    assert verdict in text
