"""Warnings: the first lets the work reach its safe point, and nothing stays behind in the process."""

import os
import signal

import pytest

from pipeline.interrupt import WARNINGS, Interrupted, raise_on_warning, stop_on_warning


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in WARNINGS]


@pytest.mark.parametrize("number", WARNINGS)
def test_a_first_warning_only_sets_the_flag_and_a_second_one_ends_the_work(number: signal.Signals):
    before = handlers()
    done = []

    def work() -> None:
        with raise_on_warning(), stop_on_warning() as interruption:
            assert not interruption
            os.kill(os.getpid(), number)
            assert interruption
            done.append("safe point")
            os.kill(os.getpid(), number)
            done.append("not reached")

    with pytest.raises(Interrupted):
        work()
    assert done == ["safe point"]
    assert handlers() == before


@pytest.mark.parametrize("number", WARNINGS)
def test_without_a_safe_point_a_warning_ends_the_work_at_once(number: signal.Signals):
    before = handlers()
    with pytest.raises(Interrupted), raise_on_warning():
        os.kill(os.getpid(), number)
    assert handlers() == before


def test_handlers_are_as_before_when_nothing_came():
    before = handlers()
    with raise_on_warning(), stop_on_warning():
        assert all(handler not in before for handler in handlers())
    assert handlers() == before


def test_a_warning_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with raise_on_warning(), stop_on_warning() as interruption:
            os.kill(os.getpid(), signal.SIGINT)
            assert not interruption
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
