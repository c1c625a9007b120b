"""Going on with a run: the same flags, as far as they decide what is learnt."""

from dataclasses import replace

import pytest

from data.errors import RequestError
from pipeline.train_request import TrainRequest

REQUEST = TrainRequest(stores=("a",), epochs=3, merged=(4, 6), learning_rate=2e-3)


def test_the_same_flags_go_on() -> None:
    REQUEST.require_same(REQUEST.to_json(), "run")


def test_where_things_lie_may_change() -> None:
    replace(REQUEST, images=("elsewhere",), workers=7).require_same(REQUEST.to_json(), "run")


def test_another_flag_is_named_with_both_values() -> None:
    with pytest.raises(RequestError, match=r"run was begun with other settings: epochs 3 there, 4 asked\."):
        replace(REQUEST, epochs=4).require_same(REQUEST.to_json(), "run")


def test_a_run_that_is_older_than_a_flag_went_as_its_default_says() -> None:
    recorded = REQUEST.to_json()
    del recorded["sync_batch_norm"]
    REQUEST.require_same(recorded, "run")
    with pytest.raises(RequestError, match="sync_batch_norm True there, False asked"):
        replace(REQUEST, sync_batch_norm=False).require_same(recorded, "run")
