"""Order, bound and errors of work done ahead."""

import threading
import time
from collections.abc import Iterator

import pytest

from data.prefetch import map_ahead


def test_results_come_in_the_order_of_the_items_however_long_each_takes() -> None:
    def slow_when_even(item: int) -> int:
        time.sleep(0.002 if item % 2 == 0 else 0)
        return item * item

    assert list(map_ahead(slow_when_even, range(50), threads=4, ahead=8)) == [i * i for i in range(50)]


def test_no_more_than_ahead_items_are_taken_before_they_are_wanted() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for i in range(100):
            taken.append(i)
            yield i

    results = map_ahead(lambda item: item, items(), threads=2, ahead=5)
    assert next(results) == 0
    assert len(taken) <= 6
    results.close()


def test_an_error_is_raised_where_its_result_is_due() -> None:
    def fail_at_three(item: int) -> int:
        if item == 3:
            raise OSError("no such picture")
        return item

    results = map_ahead(fail_at_three, range(10), threads=3, ahead=9)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="no such picture"):
        next(results)


def test_leaving_early_runs_no_further_items_and_leaves_no_thread() -> None:
    done: list[int] = []

    def work(item: int) -> int:
        time.sleep(0.005)
        done.append(item)
        return item

    results = map_ahead(work, range(1000), threads=2, ahead=20)
    next(results)
    results.close()
    count = len(done)
    time.sleep(0.05)
    assert len(done) == count < 30
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]
