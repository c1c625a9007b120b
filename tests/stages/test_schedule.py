from itertools import pairwise

import pytest

from stages.student.schedule import burn_in_steps, learning_rate, prior_box_steps

PAPER = 160 * 517
"""The paper's steps: 16,551 pictures in batches of 32."""


def test_the_papers_recipe_at_its_own_length() -> None:
    per_epoch = PAPER // 160
    assert learning_rate(1000, PAPER) == 1e-3
    assert learning_rate(120 * per_epoch - 1, PAPER) == 1e-3
    assert learning_rate(120 * per_epoch, PAPER) == pytest.approx(1e-4)
    assert learning_rate(140 * per_epoch - 1, PAPER) == pytest.approx(1e-4)
    assert learning_rate(140 * per_epoch, PAPER) == pytest.approx(1e-5)
    assert learning_rate(PAPER - 1, PAPER) == pytest.approx(1e-5)


@pytest.mark.parametrize("total", [1, 2, 7, 19, 20, 21, 160, 1000, 33_333, PAPER])
def test_it_rises_from_above_zero_then_only_falls(total: int) -> None:
    rates = [learning_rate(step, total, base=0.5) for step in range(total)]
    top = rates.index(max(rates))
    assert rates[0] > 0
    assert max(rates) == 0.5
    assert all(earlier < later for earlier, later in pairwise(rates[: top + 1]))
    assert all(earlier >= later for earlier, later in pairwise(rates[top:]))
    assert top <= max(0, burn_in_steps(total) - 1)


@pytest.mark.parametrize(("total", "steps"), [(1, 0), (19, 0), (20, 1), (2000, 100), (20_000, 1000), (PAPER, 1000)])
def test_burn_in_is_darknets_or_a_twentieth(total: int, steps: int) -> None:
    assert burn_in_steps(total) == steps


def test_burn_in_follows_the_fourth_power() -> None:
    assert learning_rate(499, PAPER) == pytest.approx(1e-3 / 16)
    assert learning_rate(249, PAPER) == pytest.approx(1e-3 / 256)


def test_the_prior_box_phase_is_darknets_at_the_papers_length_and_scales_with_it() -> None:
    assert prior_box_steps(PAPER) == pytest.approx(12_800 / 32, abs=1)
    assert prior_box_steps(PAPER // 4) == pytest.approx(12_800 / 32 / 4, abs=1)
    assert prior_box_steps(5) == 1
