"""`distill bench`: accuracy and speed of several detectors on the same pictures, in one process, on one machine."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.annotations import AnnotationSet, read_annotations
from data.errors import RequestError
from data.images import RejectedPictureError, read_picture
from data.pictures import Picture, find_pictures
from data.splits import read_list, select
from pipeline.bench_result import Candidate, Row, row_as_json, table
from pipeline.charts import ModelPoint, plot_speed_accuracy
from pipeline.evaluate import EvaluationPicture, evaluate
from pipeline.input_size import check_input_size
from pipeline.model_source import LoadedDetector, load_detector_source
from pipeline.picture_file import check_picture_path
from pipeline.progress import show_progress
from stages.bench.cost import network_cost
from stages.bench.detect import Predictor, Prepared
from stages.bench.machine import this_machine
from stages.bench.speed import DetectorParts, Schedule, measure_detectors
from stages.device import Precision, resolve_device, resolve_precision
from stages.networks.model import build_detector
from stages.networks.spec import own_spec

FRAMES = 16
"""Decoded frames that are timed in turn, so that no figure is that of one picture in the cache."""

NOISE_SHAPE = (480, 640, 3)
"""Of the frames that are timed where no pictures are given."""


@dataclass(frozen=True, slots=True)
class BenchRequest:
    """The flags of `distill bench`."""

    models: tuple[Path, ...]
    images: tuple[str, ...] = ()
    annotations: Path | None = None
    lists: tuple[str, ...] = ()
    against: tuple[str, ...] = ()
    input_size: int | None = None
    device: str = "auto"
    precision: str = "auto"
    passes: int = 3


def run_bench(request: BenchRequest, *, json_file: Path | None, plot: Path | None) -> dict[str, Any]:
    """Measure everything asked for; returns it with a "text" table, and writes `json_file` and `plot` if named.

    Raises RequestError where a model, the pictures or the annotations can't be had.
    """
    device = resolve_device(request.device)
    precision = resolve_precision(request.precision, device)
    if not request.images and (request.annotations is not None or request.lists):
        raise RequestError("--annotations and --list say something about pictures: give their folder with --images")
    _check_outputs(request, json_file, plot)
    pictures, absent = _pictures(request)
    sources = [load_detector_source(path) for path in request.models]
    candidates = _candidates(request, sources, device, precision)
    annotations = _annotations(request, sources, pictures)
    annotated = len(annotations.labelled([picture.key for picture in pictures])) if annotations else 0

    frames = _frames(pictures) if request.images else _noise()
    speeds = measure_detectors(
        frames,
        {candidate.name: _parts(candidate.predictor) for candidate in candidates},
        device,
        Schedule(passes=request.passes),
    )
    rows = []
    for candidate in candidates:
        accuracy = None
        if annotations is not None and candidate.trained:
            with show_progress(f"accuracy of {candidate.name}", len(pictures), "pictures") as progress:
                items = [EvaluationPicture(picture.key, picture.path) for picture in pictures]
                accuracy = evaluate(candidate.predictor, items, annotations, with_coco=True, progress=progress)
        rows.append(Row(candidate, speeds[candidate.name], accuracy))

    machine = this_machine()
    result: dict[str, Any] = {
        "machine": asdict(machine),
        "machine_line": machine.line,
        "device": str(device),
        "precision": precision,
        "frames": "pictures" if request.images else "noise",
        "pictures": len(pictures),
        "annotated": annotated,
        "absent": absent,
        "models": [row_as_json(row) for row in rows],
    }
    if json_file is not None:
        json_file.write_text(json.dumps(result, indent=2) + "\n")
    if plot is not None:
        _plot(rows, plot)
    return result | {
        "text": table(rows, machine.line, f"{precision} on {device}", _measured_on(request, annotated), absent)
    }


def _check_outputs(request: BenchRequest, json_file: Path | None, plot: Path | None) -> None:
    """RequestError for what would otherwise fail only when everything is measured."""
    if json_file is not None and not json_file.parent.is_dir():
        raise RequestError(f"--json {json_file}: the folder {json_file.parent} does not exist; create it")
    if plot is not None:
        check_picture_path(plot)
        if request.annotations is None:
            raise RequestError("--plot draws accuracy over speed; give --annotations, so that there is an accuracy")


def _pictures(request: BenchRequest) -> tuple[list[Picture], list[str]]:
    """The pictures to measure on, and the entries of the lists that name none."""
    if not request.images:
        return [], []
    pictures = find_pictures(request.images)
    if not request.lists:
        return pictures, []
    by_key = {picture.key: picture for picture in pictures}
    selections = [select(read_list(file), by_key) for file in request.lists]
    chosen = {key for selection in selections for key in selection.keys}
    absent = [name for selection in selections for name in selection.unknown]
    return [picture for picture in pictures if picture.key in chosen], absent


def _candidates(
    request: BenchRequest, sources: Sequence[LoadedDetector], device: torch.device, precision: Precision
) -> list[Candidate]:
    candidates: dict[str, Candidate] = {}
    for source in sources:
        name = source.name
        while name in candidates:
            name += "'"
        asked = request.input_size
        height, width = (source.height, source.width) if asked is None else (asked, asked)
        for side in (height, width):
            check_input_size(side)
        predictor = Predictor(
            source.detector, height=height, width=width, resize=source.resize, device=device, precision=precision
        )
        candidates[name] = Candidate(name, predictor, network_cost(source.detector, height, width), trained=True)
    first = sources[0]
    for model in request.against:
        size = request.input_size or first.height
        detector = build_detector(own_spec(model, first.detector.classes)).eval()
        predictor = Predictor(
            detector, height=size, width=size, resize=first.resize, device=device, precision=precision
        )
        name = f"{model} (random weights)"
        candidates[name] = Candidate(name, predictor, network_cost(detector, size, size), trained=False)
    return list(candidates.values())


def _annotations(
    request: BenchRequest, sources: Sequence[LoadedDetector], pictures: Sequence[Picture]
) -> AnnotationSet | None:
    if request.annotations is None:
        return None
    classes = sources[0].detector.classes
    for source in sources:
        if source.detector.classes != classes:
            raise RequestError(
                f"{source.file} knows {', '.join(source.detector.classes)}, {sources[0].file} {', '.join(classes)}; "
                "measure models of different classes in commands of their own"
            )
    keys = [picture.key for picture in pictures]
    annotations = read_annotations(request.annotations, None, classes).bind(keys)
    if not annotations.labelled(keys):
        raise RequestError(f"{request.annotations} annotates none of the {len(pictures)} pictures")
    return annotations


def _frames(pictures: Sequence[Picture]) -> list[NDArray[np.uint8]]:
    frames = []
    for picture in pictures:
        try:
            frames.append(read_picture(picture.path).pixels)
        except RejectedPictureError:
            continue  # it is counted and named where accuracy is measured
        if len(frames) == FRAMES:
            break
    return frames


def _noise() -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, NOISE_SHAPE, np.uint8) for _ in range(FRAMES)]


def _measured_on(request: BenchRequest, annotated: int) -> str:
    if not request.images:
        rows, columns, _ = NOISE_SHAPE
        return f"Timed on noise of {columns}×{rows}, which few boxes are found in; give --images to time yours."
    return f"Accuracy in %, on {annotated} annotated pictures." if annotated else ""


def _parts(predictor: Predictor) -> DetectorParts[Prepared, Tensor]:
    return DetectorParts(
        prepare=predictor.prepare,
        network=lambda prepared: predictor.forward([prepared]),
        postprocess=lambda entries, prepared: predictor.finish(entries, [prepared]),
    )


def _plot(rows: Sequence[Row], out: Path) -> None:
    points = [
        ModelPoint(
            row.candidate.name, row.speed.complete.fps, row.accuracy.voc.map_11_point, row.candidate.cost.parameters
        )
        for row in rows
        if row.accuracy is not None and row.accuracy.voc.map_11_point is not None
    ]
    if not points:
        raise RequestError("--plot draws accuracy over speed, and no model has an accuracy on these pictures")
    plot_speed_accuracy(points, out)
