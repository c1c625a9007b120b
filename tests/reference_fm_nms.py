"""Slow, obvious twin of stages.label.fm_nms: slots visited one by one, straight from the rules."""

import numpy as np
from numpy.typing import NDArray


def slow_feature_map_nms(
    objectness_AHW: NDArray[np.floating],
    class_prob_AKHW: NDArray[np.floating],
    window: int,
    mode: str,
    min_objectness: float,
    boxes_AHW4: NDArray[np.floating] | None = None,
) -> NDArray[np.bool_]:
    """One picture; boxes: cxcywh, for mode overlap. Returns keep_AHW."""
    anchors, height, width = objectness_AHW.shape
    reach = window // 2
    candidates = [
        (a, y, x)
        for a in range(anchors)
        for y in range(height)
        for x in range(width)
        if np.float32(objectness_AHW[a, y, x]) >= np.float32(min_objectness)
    ]
    best_class = {s: int(np.argmax(class_prob_AKHW[s[0], :, s[1], s[2]])) for s in candidates}

    def place_in_order(slot: tuple[int, int, int]) -> tuple[float, int]:
        a, y, x = slot
        return -float(objectness_AHW[slot]), a * height * width + y * width + x

    def rivals(slot: tuple[int, int, int]) -> list[tuple[int, int, int]]:
        return [
            other
            for other in candidates
            if other != slot
            and best_class[other] == best_class[slot]
            and abs(other[1] - slot[1]) <= reach
            and abs(other[2] - slot[2]) <= reach
        ]

    def overlap(one: tuple[int, int, int], other: tuple[int, int, int]) -> bool:
        assert boxes_AHW4 is not None
        shared = 1.0
        areas = [1.0, 1.0]
        for axis in (0, 1):
            spans = [
                (box[axis] - box[axis + 2] / 2, box[axis] + box[axis + 2] / 2)
                for box in (boxes_AHW4[one].astype(float), boxes_AHW4[other].astype(float))
            ]
            shared *= max(0.0, min(spans[0][1], spans[1][1]) - max(spans[0][0], spans[1][0]))
            areas = [area * (high - low) for area, (low, high) in zip(areas, spans, strict=True)]
        return shared / (sum(areas) - shared) > 0.45

    keep = np.zeros((anchors, height, width), dtype=bool)
    if mode == "off":
        kept = candidates
    elif mode == "local-max":
        kept = [s for s in candidates if all(place_in_order(s) < place_in_order(r) for r in rivals(s))]
    elif mode == "overlap":
        kept = [s for s in candidates if all(place_in_order(s) < place_in_order(r) for r in rivals(s) if overlap(s, r))]
    else:
        kept, removed = [], set()
        for slot in sorted(candidates, key=place_in_order):
            if slot not in removed:
                kept.append(slot)
                removed.update(rivals(slot))
    for slot in kept:
        keep[slot] = True
    return keep
