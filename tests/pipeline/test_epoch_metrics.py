"""An epoch's sums: they survive a checkpoint exactly, and a distillation that does nothing is found out."""

import json
import math
from dataclasses import replace

import pytest
import torch

from data.errors import WorkLeftError
from pipeline.epoch_metrics import EpochMetrics
from stages.student.samples import Batch

TERMS = {"distillation/objectness": 0.3, "distillation/box": 0.2, "distillation/class": 0.1, "total": 0.6}


def batch(pictures: int = 4, kept: int = 5) -> Batch:
    return Batch(
        pictures_B3HW=torch.zeros(pictures, 3, 1, 1),
        boxes_BT4=torch.zeros(pictures, 0, 4),
        labels_BT=torch.zeros(pictures, 0),
        labelled_B=torch.arange(pictures) < 3,
        teachers_SBAEHW=None,
        weights_SB=torch.tensor([[0.5, 0.0, 0, 0], [0.5, 1.0, 0, 0]])[:, :pictures],
        collisions=1,
        kept_slots=kept,
        problems=("a: spoilt",),
    )


def test_a_row_has_means_of_terms_and_sums_of_counts():
    metrics = EpochMetrics()
    metrics.add(TERMS, batch())
    metrics.add({**TERMS, "total": 1.0}, batch(pictures=3))
    row = metrics.row()
    assert {name: row[name] for name in ("batches", "pictures", "labelled", "with_teacher")} == {
        "batches": 2,
        "pictures": 7,
        "labelled": 6,
        "with_teacher": 4,
    }
    assert (row["kept_slots"], row["collisions"], row["problems"]) == (10, 2, 2)
    assert row["total"] == pytest.approx(0.8)


def test_a_row_is_the_same_after_a_checkpoint_in_mid_epoch():
    whole, first = EpochMetrics(), EpochMetrics()
    steps = [{name: value / (3 + i) for name, value in TERMS.items()} for i in range(6)]
    for terms in steps:
        whole.add(terms, batch())
    for terms in steps[:2]:
        first.add(terms, batch())
    second = EpochMetrics(json.loads(json.dumps(first.sums)))
    for terms in steps[2:]:
        second.add(terms, batch())
    assert second.row() == whole.row()


@pytest.mark.parametrize("term", ["objectness", "box", "class"])
def test_a_term_that_stayed_zero_is_found_out(term: str):
    metrics = EpochMetrics()
    for _ in range(3):
        metrics.add({**TERMS, f"distillation/{term}": 0.0}, batch())
    with pytest.raises(WorkLeftError, match=f"distillation/{term} was exactly zero over a whole epoch with 15 kept"):
        metrics.check_distillation(classes=3)


def test_a_term_that_was_zero_only_for_a_while_is_fine():
    metrics = EpochMetrics()
    metrics.add(dict.fromkeys(TERMS, 0.0), batch())
    metrics.add({**TERMS, "distillation/box": 1e-30}, batch())
    metrics.check_distillation(classes=3)


def test_the_class_term_of_one_class_is_zero_by_right():
    metrics = EpochMetrics()
    metrics.add({**TERMS, "distillation/class": 0.0}, batch())
    metrics.check_distillation(classes=1)
    metrics.add({"distillation/box": -0.2}, batch())  # the box term alone is not exempt
    with pytest.raises(WorkLeftError, match="distillation/box"):
        metrics.check_distillation(classes=1)


def test_without_kept_slots_there_was_nothing_to_learn():
    metrics = EpochMetrics()
    metrics.add(dict.fromkeys(TERMS, 0.0), batch(kept=0))
    metrics.check_distillation(classes=3)


def test_a_teacher_that_was_masked_for_a_whole_epoch_is_found_out():
    metrics = EpochMetrics()
    metrics.add({"region/box": 0.1}, replace(batch(kept=0), weights_SB=torch.zeros(2, 4)))
    with pytest.raises(WorkLeftError, match=r"no picture of a whole epoch had soft labels .* 1 differ"):
        metrics.check_distillation(3, with_teacher=True)
    metrics.check_distillation(3, with_teacher=False)
    metrics.add(TERMS, batch())
    metrics.check_distillation(3, with_teacher=True)


def test_a_term_that_is_switched_off_is_not_missed():
    metrics = EpochMetrics()
    metrics.add({"distillation/objectness": 0.1, "total": 0.1}, batch())
    metrics.check_distillation(classes=3)
    assert math.isclose(metrics.row()["distillation/objectness"], 0.1)
