"""Which pictures make which batch."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.student.order import batches_per_epoch, epoch_batches, whole_batches


def _order(
    labelled: int, unlabelled: int, batch_size: int, share: float | None, seed: int = 0, epoch: int = 0
) -> list[np.ndarray]:
    indices = np.arange(labelled + unlabelled)
    return epoch_batches(
        indices[:labelled],
        indices[labelled:],
        batch_size=batch_size,
        labelled_share=share,
        seed=seed,
        epoch=epoch,
    )


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 60), st.integers(0, 60), st.integers(1, 40))
def test_without_a_share_no_picture_comes_twice_and_only_a_remainder_is_left_out(
    labelled: int, unlabelled: int, batch_size: int
) -> None:
    batches = _order(labelled, unlabelled, batch_size, None)
    total = labelled + unlabelled
    seen = np.concatenate(batches)
    assert len(batches) == batches_per_epoch(total, batch_size)
    assert len(set(seen.tolist())) == len(seen)
    assert total - len(seen) < batch_size
    assert set(seen.tolist()) <= set(range(total))


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(2, 20), st.floats(0, 1))
def test_a_share_holds_in_every_batch_and_both_kinds_are_always_there(
    labelled: int, unlabelled: int, batch_size: int, share: float
) -> None:
    for batch in _order(labelled, unlabelled, batch_size, share):
        size = min(batch_size, labelled + unlabelled)
        known = int((batch < labelled).sum())
        assert len(batch) == size
        assert known == min(max(round(share * size), 1), size - 1)


def test_a_share_goes_through_all_pictures_of_a_kind_before_it_repeats_one() -> None:
    batches = _order(10, 90, 10, 0.5)
    known = np.concatenate(batches)
    known = known[known < 10]
    for start in range(0, len(known) - 10, 10):
        assert sorted(known[start : start + 10].tolist()) == list(range(10))


def test_the_order_depends_on_seed_and_epoch_and_on_nothing_else() -> None:
    again = [batch.tolist() for batch in _order(20, 20, 8, None, seed=3, epoch=5)]
    assert again == [batch.tolist() for batch in _order(20, 20, 8, None, seed=3, epoch=5)]
    assert again != [batch.tolist() for batch in _order(20, 20, 8, None, seed=3, epoch=6)]
    assert again != [batch.tolist() for batch in _order(20, 20, 8, None, seed=4, epoch=5)]


def test_whole_batches_hold_every_picture_once_in_order() -> None:
    assert [batch.tolist() for batch in whole_batches(5, 2)] == [[0, 1], [2, 3], [4]]
