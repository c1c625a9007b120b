"""`distill demo`: the main job on the photographs in the repository, in minutes, on any machine."""

import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from data.annotations import read_annotations
from data.errors import RequestError, WorkLeftError
from data.images import read_picture
from data.splits import read_list
from pipeline.bench_command import BenchRequest, run_bench
from pipeline.drawing import draw_boxes, side_by_side
from pipeline.label_command import run_label
from pipeline.label_plan import LabelRequest
from pipeline.model_source import load_detector_source
from pipeline.picture_file import save_picture
from pipeline.show_command import run_show
from pipeline.train_command import run_training
from pipeline.train_request import TrainRequest
from stages.bench.detect import Predictor
from stages.device import resolve_device
from stages.student.order import batches_per_epoch

ASSETS = Path(__file__).resolve().parents[1] / "demo"
LOWEST_AP50 = 0.30
SCORE = 0.3

STUDENT = TrainRequest(
    width=0.25,
    epochs=30,
    batch_size=8,
    learning_rate=4e-3,
    ema=0.99,
    val_fraction=0.0,
)
"""Narrower than F-YOLO is meant to be (width 1), so that two trainings fit into minutes on two cores."""


def run_demo(out: Path) -> dict[str, Any]:
    """Label, train with and without the teacher's labels, measure, draw; everything goes into the folder `out`.

    Raises RequestError where the demo's pictures are not there or `out` is in use, WorkLeftError where the distilled
    student stays below 0.30 AP50 on the test list.
    """
    pictures, annotations, lists = (
        ASSETS / "bccd/JPEGImages",
        ASSETS / "bccd/Annotations",
        ASSETS / "bccd/ImageSets/Main",
    )
    if not pictures.is_dir():
        raise RequestError(f"{pictures} is missing: the demo runs in a checkout of the repository")
    if out.exists() and any(out.iterdir()):
        raise RequestError(f"--out {out} exists and is not empty; delete it, or name another folder")
    out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()

    _say("1/5 the teacher, a narrow YOLOv2, labels 212 photographs into a store")
    teacher = out / "teacher.safetensors"
    shutil.copyfile(ASSETS / "teacher.safetensors", teacher)
    store = out / "store"
    labelled = run_label(LabelRequest((str(pictures),), store, teacher), dry_run=False)
    _say(labelled["text"])
    _say(
        run_show(
            store,
            out / "soft-labels.png",
            images=(),
            keys=(),
            count=2,
            teacher=teacher,
            cfg=None,
            names=None,
            min_objectness=0.1,
        )
    )

    teacher.unlink()
    _say("2/5 the teacher is deleted; a student learns from the store, 60 pictures annotated and 80 not")
    request = replace(
        STUDENT,
        stores=(str(store),),
        annotations=str(annotations),
        train_lists=(str(lists / "train.txt"), str(lists / "unlabelled.txt")),
        test_lists=(str(lists / "test.txt"),),
    )
    distilled = out / "distilled"
    _say(run_training(request, distilled, resume=False)["text"])

    _say("3/5 the same student, seed and number of steps, from the 60 annotations alone")
    alone = out / "alone"
    lonely = replace(
        request, train_lists=(str(lists / "train.txt"),), distillation_weight=0.0, epochs=_same_steps(request)
    )
    _say(run_training(lonely, alone, resume=False)["text"])

    _say("4/5 how good and how fast, on 72 test photographs that neither has seen; the teacher comes back for it")
    shutil.copyfile(ASSETS / "teacher.safetensors", teacher)
    bench = run_bench(
        BenchRequest(
            models=(distilled, alone, teacher),
            images=(str(pictures),),
            annotations=annotations,
            lists=(str(lists / "test.txt"),),
            against=("f-yolo", "tiny-yolo", "yolov2"),
            precision="float32",
            passes=1,
        ),
        json_file=out / "bench.json",
        plot=out / "bench.png",
    )
    _say(bench["text"])

    _say("5/5 what they see")
    _say(draw_comparison(out / "boxes.png", read_list(lists / "test.txt")[0], distilled, alone))
    minutes = (time.monotonic() - began) / 60
    ap50 = bench["models"][0]["voc"]["map_11_point"]
    text = f"AP50 {ap50:.2f} distilled, {bench['models'][1]['voc']['map_11_point']:.2f} alone; {minutes:.1f} minutes"
    if ap50 < LOWEST_AP50:
        raise WorkLeftError(f"the distilled student reached AP50 {ap50:.2f}, at least {LOWEST_AP50:.2f} was expected")
    return {"out": str(out), "ap50": ap50, "minutes": round(minutes, 2), "bench": bench, "text": text}


def _same_steps(request: TrainRequest) -> int:
    """Epochs over the annotated pictures that make as many optimiser steps as the distilled student takes."""
    annotated = len(read_list(request.train_lists[0]))
    everything = annotated + len(read_list(request.train_lists[1]))
    steps = request.epochs * batches_per_epoch(everything, request.batch_size)
    return round(steps / batches_per_epoch(annotated, request.batch_size))


def draw_comparison(out: Path, stem: str, *runs: Path) -> str:
    """One test picture with its annotation and what each run's network finds, side by side."""
    picture = read_picture(ASSETS / "bccd/JPEGImages" / f"{stem}.jpg").pixels
    annotations = read_annotations(ASSETS / "bccd/Annotations")
    truth = annotations.truth(f"JPEGImages/{stem}.jpg", *picture.shape[:2])
    panels = []
    if truth is not None:
        panels.append(("annotation", draw_boxes(picture, truth.boxes, truth.labels, None, annotations.classes)))
    for run in runs:
        source = load_detector_source(run)
        predictor = Predictor(
            source.detector,
            height=source.height,
            width=source.width,
            resize=source.resize,
            device=resolve_device("cpu"),
        )
        found = predictor.detect([picture], score_threshold=SCORE)[0]
        drawn = draw_boxes(picture, found.boxes, found.labels, found.scores, source.detector.classes)
        panels.append((f"student, {run.name}", drawn))
    save_picture(side_by_side(panels), out)
    return f"{out}: {stem}.jpg with its annotation and the students' boxes"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
