"""What every accuracy measure asks of its input before it counts anything."""

from collections.abc import Mapping, Sequence

import numpy as np

from data.boxes import Detections, Truth


def evaluation_keys(
    detections: Mapping[str, Detections], truths: Mapping[str, Truth], classes: Sequence[str]
) -> list[str]:
    """The keys of the pictures to evaluate, sorted: the one order in which ties are broken.

    Raises ValueError if the two do not hold the same pictures (a picture without detections has an empty `Detections`:
    a missing one is a picture the detector never saw), if a label is not an index into `classes`, or if a score is not
    finite.
    """
    if detections.keys() != truths.keys():
        odd = sorted(detections.keys() ^ truths.keys())
        where = "detections but no truth" if odd[0] in detections else "truth but no detections"
        raise ValueError(f"{len(odd)} pictures are on one side only, the first is {odd[0]!r} with {where}.")
    for key, found in detections.items():
        for labels in (found.labels, truths[key].labels):
            if len(labels) and not 0 <= labels.min() <= labels.max() < len(classes):
                raise ValueError(f"Picture {key!r} has a label outside 0 to {len(classes) - 1}.")
        if not np.isfinite(found.scores).all():
            raise ValueError(f"Picture {key!r} has a detection whose score is not finite.")
    return sorted(truths)
