"""Feature-map NMS against its slow twin, and the cases the rules were written for."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import RequestError
from data.store.schema import FmNmsAttributes, FmNmsMode
from stages.label.fm_nms import apply_keep, feature_map_nms, filter_entries
from stages.networks.region import decode_entries
from tests.reference_fm_nms import slow_feature_map_nms

MODES: tuple[FmNmsMode, ...] = ("local-max", "greedy", "overlap", "off")
ANCHORS = torch.tensor([(1.0, 1.0), (0.5, 2.0), (2.0, 1.5), (1.1, 0.9), (3.0, 3.0)])
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")),
]


def one_class(objectness: list[list[float]]) -> tuple[torch.Tensor, torch.Tensor]:
    """One picture, one anchor, one class."""
    objectness_BAHW = torch.tensor(objectness, dtype=torch.float16)[None, None]
    return objectness_BAHW, torch.ones_like(objectness_BAHW)[:, :, None]


def random_entries(seed: int, batch: int, anchors: int, classes: int, height: int, width: int) -> torch.Tensor:
    """Teacher-like float16 entries with many equal objectness values and equal class probabilities."""
    generator = torch.Generator().manual_seed(seed)
    entries = torch.randn(batch, anchors, 5 + classes, height, width, generator=generator)
    entries[:, :, 4] = torch.randint(0, 6, (batch, anchors, height, width), generator=generator) / 5
    entries[:, :, 5:] = torch.randint(0, 3, (batch, anchors, classes, height, width), generator=generator) / 2
    return entries.half()


@settings(deadline=None, max_examples=150)
@given(
    seed=st.integers(0, 2**32 - 1),
    anchors=st.integers(1, 3),
    classes=st.integers(1, 3),
    height=st.integers(1, 6),
    width=st.integers(1, 6),
    window=st.sampled_from([1, 3, 5, 31]),
    mode=st.sampled_from(MODES),
    min_objectness=st.sampled_from([0.0, 0.01, 0.4, 0.6, 1.5]),
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32]),
)
def test_equals_the_slow_twin(seed, anchors, classes, height, width, window, mode, min_objectness, dtype):
    entries = random_entries(seed, 2, anchors, classes, height, width).to(dtype)
    boxes = decode_entries(entries.float(), ANCHORS[:anchors])
    keep = feature_map_nms(entries[:, :, 4], entries[:, :, 5:], window, mode, min_objectness, boxes)
    plain = entries.float().numpy()
    for picture in range(2):
        slow = slow_feature_map_nms(
            plain[picture, :, 4], plain[picture, :, 5:], window, mode, min_objectness, boxes[picture].numpy()
        )
        np.testing.assert_array_equal(keep[picture].numpy(), slow)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("mode", MODES)
def test_equals_the_slow_twin_at_full_size(device, mode):
    entries = random_entries(0, 2, 5, 20, 13, 13)
    on_device = entries.to(device)
    boxes = decode_entries(entries.float(), ANCHORS)
    keep = feature_map_nms(on_device[:, :, 4], on_device[:, :, 5:], 3, mode, 0.01, boxes.to(device))
    assert keep.device == on_device.device
    plain = entries.float().numpy()
    for picture in range(2):
        slow = slow_feature_map_nms(plain[picture, :, 4], plain[picture, :, 5:], 3, mode, 0.01, boxes[picture].numpy())
        np.testing.assert_array_equal(keep[picture].cpu().numpy(), slow)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    window=st.sampled_from([1, 3, 5]),
    mode=st.sampled_from(["local-max", "greedy", "overlap"]),
    min_objectness=st.sampled_from([0.0, 0.01, 0.4]),
)
def test_filtering_an_off_store_gives_the_other_store_bit_for_bit(seed, window, mode, min_objectness):
    entries = random_entries(seed, 2, 3, 4, 5, 4)

    def store(values: torch.Tensor, with_mode: FmNmsMode) -> torch.Tensor:
        return filter_entries(values, ANCHORS[:3], FmNmsAttributes(with_mode, window, min_objectness))

    off = store(entries, "off")
    assert torch.equal(store(off, mode).view(torch.int16), store(entries, mode).view(torch.int16))


def test_a_neighbour_that_is_another_object_is_kept_by_overlap_alone():
    """Three cells in a row: a large box seen by the first two, and a small one of its own in the third."""
    objectness, classes = one_class([[0.9, 0.8, 0.7]])
    boxes = torch.tensor([(1.0, 0.5, 2.0, 1.0), (1.1, 0.5, 2.0, 1.0), (2.5, 0.5, 0.5, 0.5)])[None, None, None]
    both = feature_map_nms(objectness, classes, mode="overlap", boxes_BAHW4=boxes)
    assert both.flatten().tolist() == [True, False, True]
    assert feature_map_nms(objectness, classes, mode="local-max").flatten().tolist() == [True, False, False]
    with pytest.raises(ValueError, match="needs the boxes"):
        feature_map_nms(objectness, classes, mode="overlap")


def test_the_two_modes_differ_on_a_chain():
    """A beats B, B beats C, C is not near A: greedy keeps C, because B is gone when C is visited."""
    chain = one_class([[0.9, 0.8, 0.7, 0.0, 0.0]])
    assert feature_map_nms(*chain, mode="local-max", min_objectness=0.1)[0, 0, 0].tolist() == [1, 0, 0, 0, 0]
    assert feature_map_nms(*chain, mode="greedy", min_objectness=0.1)[0, 0, 0].tolist() == [1, 0, 1, 0, 0]


def test_equal_objectness_goes_to_the_lowest_flat_index_anchor_first():
    """The lower anchor wins although its cell comes later in the grid."""
    objectness = torch.zeros(1, 2, 2, 2, dtype=torch.float16)
    objectness[0, 0, 1, 1] = objectness[0, 1, 0, 0] = 0.5
    keep = feature_map_nms(objectness, torch.ones(1, 2, 1, 2, 2, dtype=torch.float16), min_objectness=0.01)
    assert keep.nonzero().tolist() == [[0, 0, 1, 1]]


def test_minus_zero_ties_with_zero():
    keep = feature_map_nms(*one_class([[-0.0, 0.0]]))
    assert keep[0, 0, 0].tolist() == [True, False]


def test_values_below_zero_keep_their_order():
    keep = feature_map_nms(*one_class([[-0.5, -0.25, -1.0]]), min_objectness=-2.0)
    assert keep[0, 0, 0].tolist() == [False, True, False]


def test_other_classes_do_not_compete():
    objectness, _ = one_class([[0.9, 0.8]])
    classes = torch.tensor([[0.9, 0.1], [0.1, 0.9]], dtype=torch.float16)[None, None, :, None]
    assert feature_map_nms(objectness, classes).all()


def test_pictures_of_a_batch_do_not_see_each_other():
    objectness = torch.tensor([0.9, 0.5], dtype=torch.float16).view(2, 1, 1, 1)
    assert feature_map_nms(objectness, objectness[:, :, None]).all()


@pytest.mark.parametrize("mode", MODES)
def test_nan_is_never_a_candidate(mode):
    objectness, classes = one_class([[float("nan"), 0.5]])
    keep = feature_map_nms(objectness, classes, mode=mode, boxes_BAHW4=torch.ones(1, 1, 1, 2, 4))
    assert keep[0, 0, 0].tolist() == [False, True]
    stored = apply_keep(objectness[:, :, None], keep)
    assert stored[0, 0, 0, 0].tolist() == [0.0, 0.5]


def test_an_empty_batch_stays_empty():
    keep = feature_map_nms(torch.zeros(0, 5, 13, 13), torch.zeros(0, 5, 20, 13, 13))
    assert keep.shape == (0, 5, 13, 13)


@pytest.mark.parametrize("window", [0, 2, -1])
def test_an_even_window_is_refused(window):
    with pytest.raises(RequestError, match="odd"):
        feature_map_nms(*one_class([[0.5]]), window=window)


def test_an_unknown_mode_is_refused():
    with pytest.raises(RequestError, match="local-max, greedy, overlap, off"):
        feature_map_nms(*one_class([[0.5]]), mode="soft")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("objectness", "classes"),
    [
        (torch.zeros(1, 5, 13, 13), torch.zeros(1, 5, 20, 13, 12)),
        (torch.zeros(5, 13, 13), torch.zeros(5, 20, 13, 13)),
        (torch.zeros(1, 5, 13, 13), torch.zeros(1, 5, 0, 13, 13)),
        (torch.zeros(1, 5, 13, 13), torch.zeros(1, 5, 13, 13)),
        (torch.zeros(1, 5, 13, 13, dtype=torch.float64), torch.zeros(1, 5, 20, 13, 13)),
    ],
)
def test_tensors_that_do_not_fit_are_refused(objectness, classes):
    with pytest.raises(ValueError, match="FM-NMS got"):
        feature_map_nms(objectness, classes)
