"""Pictures of the results page: what the detectors see, and what counts as a near-twin. Drawn where the runs lie."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ablation.drives import TWIN_DIFFERENCE, nearest
from ablation.pool import Pool
from data.annotations import read_annotations
from data.images import read_picture
from pipeline.drawing import draw_boxes, side_by_side
from pipeline.model_source import load_detector_source
from pipeline.picture_file import save_picture
from stages.bench.detect import Predictor
from stages.device import resolve_device

SHOWN = 3
SCORE = 0.3


def draw_detections(pool: Pool, runs: Sequence[tuple[str, Path]], out: Path) -> bool:
    """Test pictures, each with its annotation and what every run finds above 0.3; False where a run is gone."""
    if not all((path / "best.safetensors").exists() for _, path in runs):
        return False
    annotations = read_annotations(pool.annotations)
    rows = []
    for file in _eventful(pool):
        picture = read_picture(file).pixels
        truth = annotations.truth(f"test/{file.name}", *picture.shape[:2])
        assert truth is not None, file
        panels = [("annotation", draw_boxes(picture, truth.boxes, truth.labels, None, annotations.classes))]
        for name, path in runs:
            source = load_detector_source(path)
            predictor = Predictor(
                source.detector,
                height=source.height,
                width=source.width,
                resize=source.resize,
                device=resolve_device("cpu"),
            )
            found = predictor.detect([picture], score_threshold=SCORE)[0]
            panels.append((name, draw_boxes(picture, found.boxes, found.labels, found.scores, predictor.classes)))
        rows.append(side_by_side(panels))
    save_picture(np.concatenate(rows), out)
    return True


def draw_twins(pool: Pool, out: Path) -> None:
    """Test pictures, and the training pictures most like them, whose difference is next to what counts as a twin."""
    test, training = pool.lists["test"].read_text().split(), pool.training
    files = {path.stem: path for folder in (pool.images, pool.test_images) for path in folder.glob("*.jpg")}
    found = sorted(nearest(test, training, files), key=lambda pair: abs(pair[0] - TWIN_DIFFERENCE))[:SHOWN]
    rows: list[NDArray[np.uint8]] = []
    for difference, one, other in sorted(found):
        pair = [(f"test, {difference:.3f}", read_picture(files[one]).pixels)]
        pair.append(("training", read_picture(files[other]).pixels))
        rows.append(side_by_side(pair))
    save_picture(np.concatenate(rows), out)


def _eventful(pool: Pool) -> list[Path]:
    """The test pictures with the most annotated classes and then objects, of as many drives."""
    annotations = read_annotations(pool.annotations)
    best: dict[str, tuple[tuple[int, int], Path]] = {}
    for file in sorted(pool.test_images.glob("*.jpg")):
        truth = annotations.truth(f"test/{file.name}", *read_picture(file).pixels.shape[:2])
        assert truth is not None, file
        worth = (len(set(truth.labels.tolist())), min(len(truth.labels), 8))
        drive = file.stem.split("_")[0]
        if drive not in best or worth > best[drive][0]:
            best[drive] = worth, file
    return [file for _, file in sorted(best.values(), reverse=True)[:SHOWN]]
