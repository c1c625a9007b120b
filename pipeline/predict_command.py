"""`distill predict`: detections of a model on pictures, drawn and as JSON."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data.boxes import Detections
from data.errors import RequestError, WorkLeftError
from data.pictures import find_pictures, relative_path, root_label
from pipeline.drawing import draw_boxes
from pipeline.evaluate import EvaluationPicture, detect_all
from pipeline.input_size import check_input_size
from pipeline.model_source import load_detector_source
from pipeline.picture_file import save_picture
from pipeline.progress import show_progress
from stages.bench.detect import Predictor
from stages.device import resolve_device, resolve_precision

DETECTIONS_FILE = "detections.json"
BATCH = 8
THREADS = 2


def run_predict(
    model: Path,
    images: Sequence[str],
    out: Path,
    *,
    cfg: Path | None,
    names: Path | None,
    score: float,
    input_size: int | None,
    device: str,
    precision: str,
) -> dict[str, Any]:
    """Write every picture with its boxes under `out`, and all detections into detections.json there.

    Raises RequestError where the model or the pictures can't be had, or `out` is the folder of a picture; WorkLeftError
    where no picture could be decoded.
    """
    source = load_detector_source(model, cfg, names)
    height, width = (source.height, source.width) if input_size is None else (input_size, input_size)
    for side in (height, width):
        check_input_size(side)
    pictures = find_pictures(images)
    if out.exists() and not out.is_dir():
        raise RequestError(f"--out {out} is a file; name a folder")
    folders = {Path(text).resolve() for text in images if Path(text).is_dir()}
    place = out.resolve()
    if not folders.isdisjoint({place, *place.parents}) or any(place in p.path.resolve().parents for p in pictures):
        raise RequestError(
            f"--out {out} holds pictures to look at or lies among them; nothing is ever written there, name another "
            "folder"
        )
    target_device = resolve_device(device)
    predictor = Predictor(
        source.detector,
        height=height,
        width=width,
        resize=source.resize,
        device=target_device,
        precision=resolve_precision(precision, target_device),
    )
    out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    rejected: list[dict[str, str]] = []
    items = [EvaluationPicture(picture.key, picture.path) for picture in pictures]
    with show_progress("predicting", len(items), "pictures") as progress:
        for key, picture, found, reason in detect_all(
            predictor, items, batch_size=BATCH, threads=THREADS, progress=progress, score_threshold=score
        ):
            if picture is None:
                rejected.append({"key": key, "reason": reason})
                continue
            drawn = draw_boxes(picture, found.boxes, found.labels, found.scores, predictor.classes)
            # A suffix is kept in the name, so that a.jpg and a.png don't overwrite each other.
            target = out / root_label(key) / relative_path(key).parent / f"{relative_path(key).name}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            save_picture(drawn, target)
            rows.append({"key": key, "detections": as_json(found, predictor.classes)})
    result = {"model": str(model), "score": score, "pictures": rows, "rejected": rejected}
    (out / DETECTIONS_FILE).write_text(json.dumps(result, indent=1) + "\n")
    if not rows:
        raise WorkLeftError(f"none of {len(items)} pictures could be decoded; the first: {rejected[0]['reason']}")
    count = sum(len(row["detections"]) for row in rows)
    text = f"{out}: {count} objects in {len(rows)} pictures, drawn and in {DETECTIONS_FILE}"
    if rejected:
        text += f"; {len(rejected)} pictures could not be decoded"
    return result | {"text": text}


def as_json(found: Detections, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Detections as JSON values: class, score, and left, top, right, bottom in pixels."""
    return [
        {"class": classes[label], "score": round(score, 4), "box": [round(edge, 2) for edge in box]}
        for box, score, label in zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True)
    ]
