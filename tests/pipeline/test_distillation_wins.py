"""The claim itself, in small: what a teacher says of unlabelled pictures makes a better student.

A reduced form of the first rows of docs/results.md, on the photographs in the repository: 10 annotated pictures alone,
against the same and 130 that only the teacher saw. Same seed, same number of optimiser steps, long enough for the
student alone to have learnt what it can.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from data.annotations import read_annotations
from data.pictures import find_pictures
from data.splits import read_list, select
from pipeline.demo import ASSETS, STUDENT
from pipeline.evaluate import EvaluationPicture, evaluate
from pipeline.label_command import run_label
from pipeline.label_plan import LabelRequest
from pipeline.model_source import load_detector_source
from pipeline.train_command import run_training
from stages.bench.detect import Predictor
from stages.device import resolve_device

ANNOTATED, STEPS, INPUT = 10, 800, 256
LISTS, ANNOTATIONS, PICTURES = ASSETS / "bccd/ImageSets/Main", ASSETS / "bccd/Annotations", ASSETS / "bccd/JPEGImages"
MARGIN = 0.03


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_unlabelled_pictures_and_a_teacher_beat_the_annotations_alone(tmp_path: Path) -> None:
    stems = read_list(LISTS / "train.txt")
    annotated, others = stems[:ANNOTATED], [*stems[ANNOTATED:], *read_list(LISTS / "unlabelled.txt")]
    few = write_list(tmp_path / "annotated.txt", annotated)
    rest = write_list(tmp_path / "unlabelled.txt", others)
    known = tmp_path / "annotations"
    known.mkdir()
    for stem in annotated:
        (known / f"{stem}.xml").write_bytes((ANNOTATIONS / f"{stem}.xml").read_bytes())
    store = tmp_path / "store"
    run_label(LabelRequest((str(PICTURES),), store, ASSETS / "teacher.safetensors"), dry_run=False)

    distilled = replace(
        STUDENT,
        stores=(str(store),),
        annotations=str(known),
        train_lists=(few, rest),
        test_lists=(str(LISTS / "test.txt"),),
        input_size=INPUT,
        epochs=epochs(len(annotated) + len(others)),
    )
    alone = replace(distilled, train_lists=(few,), distillation_weight=0.0, epochs=epochs(len(annotated)))
    with_teacher = run_training(distilled, tmp_path / "distilled", resume=False)
    without = run_training(alone, tmp_path / "alone", resume=False)
    assert (with_teacher["labelled"], with_teacher["pictures"]) == (ANNOTATED, ANNOTATED + len(others))
    assert (without["labelled"], without["pictures"]) == (ANNOTATED, ANNOTATED)

    better, worse = ap50(tmp_path / "distilled"), ap50(tmp_path / "alone")
    print(f"AP50 {better:.3f} distilled, {worse:.3f} alone")
    assert better > worse + MARGIN


def epochs(pictures: int) -> int:
    """As many as make about STEPS optimiser steps."""
    return round(STEPS / (pictures // STUDENT.batch_size))


def write_list(file: Path, names: list[str]) -> str:
    file.write_text("".join(f"{name}\n" for name in names))
    return str(file)


def ap50(run: Path) -> float:
    """VOC07 AP50 on the demo's test list."""
    source = load_detector_source(run)
    predictor = Predictor(
        source.detector,
        height=source.height,
        width=source.width,
        resize=source.resize,
        device=resolve_device("cpu"),
    )
    files = {picture.key: picture.path for picture in find_pictures([str(PICTURES)])}
    chosen = select(read_list(LISTS / "test.txt"), files).keys
    pictures = [EvaluationPicture(key, files[key]) for key in chosen]
    truths = read_annotations(ANNOTATIONS).bind(chosen)
    return evaluate(predictor, pictures, truths, with_coco=False).voc.map_11_point
