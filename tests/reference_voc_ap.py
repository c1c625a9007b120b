"""VOC average precision a second time, one detection after the other, in exact fractions. Slow and obvious."""

from fractions import Fraction

from data.boxes import Detections, Truth

Box = tuple[Fraction, Fraction, Fraction, Fraction]


def _fractions(row) -> Box:
    return tuple(Fraction(float(value)) for value in row)


def _iou(a: Box, b: Box) -> Fraction:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return Fraction(0)
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def verdicts(
    detections: dict[str, Detections], truths: dict[str, Truth], label: int, threshold: Fraction
) -> tuple[list[str], int]:
    """ "tp", "fp" or "ignored" for each detection of a class, best first, and the number of truths that count."""
    ranked = sorted(
        (-float(found.scores[i]), key, i)
        for key, found in detections.items()
        for i in range(len(found))
        if found.labels[i] == label
    )
    wanted = sum(
        1
        for truth in truths.values()
        for j in range(len(truth))
        if truth.labels[j] == label and not truth.difficult[j] and not truth.crowd[j]
    )
    taken, out = set(), []
    for _, key, i in ranked:
        truth, box = truths[key], _fractions(detections[key].boxes[i])
        best, best_overlap = None, Fraction(-1)
        for j in range(len(truth)):
            if truth.labels[j] != label:
                continue
            overlap = _iou(box, _fractions(truth.boxes[j]))
            if overlap > best_overlap:
                best, best_overlap = j, overlap
        if best is None or best_overlap < threshold:
            out.append("fp")
        elif truth.difficult[best] or truth.crowd[best]:
            out.append("ignored")
        elif (key, best) in taken:
            out.append("fp")
        else:
            taken.add((key, best))
            out.append("tp")
    return out, wanted


def average_precisions(out: list[str], wanted: int) -> tuple[Fraction, Fraction]:
    """11-point and all-point AP from the verdicts."""
    points, tp, fp = [], 0, 0
    for verdict in out:
        tp, fp = tp + (verdict == "tp"), fp + (verdict == "fp")
        if verdict != "ignored":
            points.append((Fraction(tp, wanted), Fraction(tp, tp + fp)))
    eleven = sum(max((p for r, p in points if r >= Fraction(k, 10)), default=Fraction(0)) for k in range(11)) / 11
    area = sum(
        (max(p for r, p in points if r >= Fraction(k, wanted)) for k in range(1, tp + 1)), start=Fraction(0)
    ) / Fraction(wanted)
    return Fraction(eleven), area
