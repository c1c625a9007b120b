"""How far what a store holds of a picture is from what its teacher says of it now, and whether that is rounding."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from data.store.layout import SOFT_LABELS
from data.store.schema import StoreAttributes
from stages.label.fm_nms import filter_entries
from stages.label.kept_bounds import kept_bounds

KEPT_ALIKE = 0.995
"""Of the slots, that must be kept in both or in neither (docs/contracts.md, 1). Necessary, and no more: where few slots
are kept, two stores of different pictures reach it."""

TOLERANCE: Mapping[str, float] = {"float32": 2e-3, "float16": 2e-2, "bfloat16": 1e-1}
"""Of a value, relative and absolute, by the precision of the store. float32: docs/contracts.md. The others: some
tens of roundings of the format (2⁻¹¹ and 2⁻⁸), as many as a network has layers to add them up."""

ENTRY_AXIS = 1


@dataclass(frozen=True, slots=True)
class Deviation:
    """How far one array is from the teacher, in one picture or in several.

    largest: |stored − computed| of the values compared; key: of its picture. scale: the largest value. compared: slots
    that the store keeps, positions of a feature map. kept_alike: share of the slots kept in both or in neither, 1 for
    feature maps. unexplained: slots kept by one side only where the tolerance doesn't explain it. agrees: within
    tolerance, in every picture.
    """

    array: str
    largest: float
    key: str
    scale: float
    compared: int
    kept_alike: float
    unexplained: int
    agrees: bool


def feature_deviation(
    array: str, key: str, stored: NDArray[np.float16], computed: NDArray[np.float16], precision: str
) -> Deviation:
    """Of one picture's feature map, [C, H', W'] each."""
    largest, close = _distance(stored, computed, TOLERANCE[precision])
    compared = stored[0].size
    return Deviation(array, largest, key, _scale(stored), compared, 1.0, 0, close)


def label_deviation(
    key: str, stored: NDArray[np.float16], entries: NDArray[np.float16], attributes: StoreAttributes
) -> Deviation:
    """Of one picture's soft labels [A, 5+K, H, W]; entries: the teacher's, before FM-NMS.

    Every slot that the store keeps is compared, whether the teacher keeps it or not. Where only one side keeps it, the
    tolerance must explain it: an objectness near the threshold, or a near tie with a rival in the window.
    """
    tolerance = TOLERANCE[attributes.run.precision]
    anchors_A2, entries_BAEHW = torch.tensor(attributes.teacher.anchors), torch.from_numpy(entries)[None]
    computed = filter_entries(entries_BAEHW, anchors_A2, attributes.fm_nms)[0].numpy()
    surely, possibly = (
        bound[0].numpy() for bound in kept_bounds(entries_BAEHW, anchors_A2, attributes.fm_nms, tolerance)
    )
    kept, kept_now = stored.any(axis=ENTRY_AXIS), computed.any(axis=ENTRY_AXIS)
    largest, close = _distance(
        np.moveaxis(stored, ENTRY_AXIS, -1)[kept], np.moveaxis(entries, ENTRY_AXIS, -1)[kept], tolerance
    )
    unexplained = int(((kept & ~possibly) | (surely & ~kept)).sum())
    alike = float((kept == kept_now).mean())
    agrees = close and unexplained == 0
    return Deviation(SOFT_LABELS, largest, key, _scale(stored), int(kept.sum()), alike, unexplained, agrees)


def sum_up(each: Sequence[Deviation]) -> Deviation:
    """One array over all pictures; one picture that disagrees is enough."""
    largest = max(each, key=lambda deviation: (not deviation.agrees, deviation.largest))
    alike = sum(deviation.kept_alike for deviation in each) / len(each)
    return Deviation(
        largest.array,
        largest.largest,
        largest.key,
        max(deviation.scale for deviation in each),
        sum(deviation.compared for deviation in each),
        alike,
        sum(deviation.unexplained for deviation in each),
        all(deviation.agrees for deviation in each) and alike >= KEPT_ALIKE,
    )


def _distance(stored: NDArray[np.float16], computed: NDArray[np.float16], tolerance: float) -> tuple[float, bool]:
    """The largest difference of two arrays, and whether all are within tolerance."""
    one, other = stored.astype(np.float64), computed.astype(np.float64)
    close = np.isclose(one, other, rtol=tolerance, atol=tolerance)
    return float(np.abs(one - other).max(initial=0.0)), bool(close.all())


def _scale(stored: NDArray[np.float16]) -> float:
    return float(np.abs(stored.astype(np.float64)).max())
