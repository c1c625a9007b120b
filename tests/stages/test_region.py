import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.networks.region import activate, decode_boxes, decode_entries, encode_boxes
from tests.reference_region import activate_slowly, decode_slowly

ANCHORS = [(1.08, 1.19), (3.42, 4.41), (6.63, 11.38)]


@given(seed=st.integers(0, 2**31), rows=st.integers(1, 5), columns=st.integers(1, 5), classes=st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_activation_and_decoding_equal_the_slow_twin(seed: int, rows: int, columns: int, classes: int) -> None:
    raw = np.random.default_rng(seed).normal(0, 2, (3 * (5 + classes), rows, columns))
    entries_BAEHW = activate(torch.from_numpy(raw)[None], 3, classes)
    boxes_BAHW4 = decode_entries(entries_BAEHW, torch.tensor(ANCHORS, dtype=torch.float64))
    slow = activate_slowly(raw, 3, classes)
    np.testing.assert_allclose(entries_BAEHW[0].numpy(), slow, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(boxes_BAHW4[0].numpy(), decode_slowly(slow, ANCHORS), rtol=1e-12)


@given(
    entries=st.tuples(
        st.floats(0, 1),
        st.floats(0, 1),
        st.floats(-8, 5, allow_subnormal=False),
        st.floats(-8, 5, allow_subnormal=False),
    ),
    grid=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    cell=st.tuples(st.floats(0, 0.999), st.floats(0, 0.999)),
    anchor=st.tuples(st.floats(0.05, 40), st.floats(0.05, 40)),
)
@settings(max_examples=200, deadline=None)
def test_encode_undoes_decode_and_decode_undoes_encode(
    entries: tuple[float, ...], grid: tuple[int, int], cell: tuple[float, float], anchor: tuple[float, float]
) -> None:
    rows, columns = grid
    row, column = torch.tensor(int(cell[0] * rows)), torch.tensor(int(cell[1] * columns))
    anchor_wh = torch.tensor(anchor, dtype=torch.float64)
    xywh = torch.tensor(entries, dtype=torch.float64)
    box = decode_boxes(xywh, column, row, anchor_wh, rows, columns)
    again = encode_boxes(box, column, row, anchor_wh, rows, columns)
    torch.testing.assert_close(again, xywh, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(decode_boxes(again, column, row, anchor_wh, rows, columns), box, rtol=1e-12, atol=1e-12)


def test_slots_broadcast_against_their_cells_and_anchors() -> None:
    xywh = torch.zeros(4, 7, 4)
    boxes = decode_boxes(xywh, torch.arange(7), torch.arange(4)[:, None], torch.tensor([2.0, 1.0]), 4, 7)
    assert boxes.shape == (4, 7, 4)
    torch.testing.assert_close(boxes[3, 5], torch.tensor([5 / 7, 3 / 4, 2 / 7, 1 / 4]))


def test_a_head_of_another_width_is_refused() -> None:
    with pytest.raises(ValueError, match="125 channels are not 5 anchors of 5"):
        activate(torch.zeros(1, 125, 2, 2), 5, 3)
