"""What distillation costs a training step: from a store, without distillation, and with the teacher in the loop."""

import tempfile
import time
from collections.abc import Generator, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import torch

from data.annotations import AnnotationSet, read_annotations
from data.augment import AugmentConfig
from data.picture_cache import PictureCache
from data.pictures import Picture, find_pictures
from data.store.reader import LabelStore
from data.store.slots import load_kept_slots
from parts.labelling import make_teacher, prepare
from parts.scene import CLASSES, Scene, random_detector, random_teacher
from parts.turns import Finding, Goal, in_turn, ratio, spread
from pipeline.label_plan import DEFAULT_FM_NMS
from stages.device import Precision, autocast, synchronize
from stages.label.fm_nms import filter_entries
from stages.label.teacher import Teacher
from stages.networks.f_yolo import FYoloConfig
from stages.networks.network import Detector
from stages.student.loader import stream_batches
from stages.student.objective import ObjectiveConfig
from stages.student.samples import Batch, SampleSettings, StoredLabels, TrainingPicture
from stages.student.soft_targets import Grid
from stages.student.trainer import OptimiserConfig, Trainer

GOAL_STORE, GOAL_LOOP = Goal("at least", 0.95), Goal("at least", 1.8)
LEARNING_RATE = 1e-4
"""Low, so that random weights stay finite; it costs what any other costs."""

STORE, PLAIN, LOOP = "store", "plain", "loop"


class Course:
    """One way to train a student: its pictures, with soft labels or without, and perhaps a teacher in the loop.

    cache_bytes: of decoded pictures kept; 0 decodes every picture every time, as with more pictures than fit.
    """

    def __init__(
        self,
        scene: Scene,
        pictures: Sequence[TrainingPicture],
        precision: Precision,
        *,
        teacher: Teacher | None = None,
        cache_bytes: int = 0,
    ) -> None:
        self.scene, self.pictures, self.teacher = scene, pictures, teacher
        student = random_detector(scene, "f-yolo", FYoloConfig(width=scene.width))
        self.trainer = Trainer(student, ObjectiveConfig(), OptimiserConfig(), device=scene.device, precision=precision)
        self.samples = SampleSettings(student.anchors, len(CLASSES), "letterbox", AugmentConfig(), seed=0)
        self.cache = PictureCache(cache_bytes)
        self.epoch = count()

    def batches(self, number: int) -> Generator[Batch, None, None]:
        """So many batches in a stream of their own, as an epoch's."""
        epoch, size = next(self.epoch), self.scene.train_batch
        drawn = np.random.default_rng(epoch).permutation(-(-number * size // len(self.pictures)) * len(self.pictures))
        order = np.split(drawn[: number * size] % len(self.pictures), number)
        return stream_batches(
            self.pictures,
            order,
            self.samples,
            self.cache,
            epoch=epoch,
            first=0,
            input_size=self.scene.input_size,
            multi_scale=False,
            teachers=len(self.pictures[0].stored),
            threads=self.scene.threads,
        )

    def load(self, number: int) -> float:
        """Only make the batches; pictures per second."""
        began = time.perf_counter()
        for _ in self.batches(number):
            pass
        return number * self.scene.train_batch / (time.perf_counter() - began)

    def step(self, number: int) -> float:
        """Only learn, from one batch again and again; pictures per second."""
        (batch,) = self.batches(1)
        batch = batch.on(self.scene.device, self.trainer.memory_format)
        synchronize(self.scene.device)
        began = time.perf_counter()
        for _ in range(number):
            self.trainer.step(batch, LEARNING_RATE, prior_box=False)
        synchronize(self.scene.device)
        return number * self.scene.train_batch / (time.perf_counter() - began)

    def train(self, number: int) -> float:
        """Make the batches and learn from them; pictures per second, from the first read to the last step's end."""
        began = time.perf_counter()
        for batch in self.batches(number):
            self.trainer.step(
                with_live_labels(batch, self.teacher) if self.teacher else batch, LEARNING_RATE, prior_box=False
            )
        synchronize(self.scene.device)
        return number * self.scene.train_batch / (time.perf_counter() - began)


@torch.no_grad()
def with_live_labels(batch: Batch, teacher: Teacher) -> Batch:
    """The batch with what the teacher says of it now, on the device, filtered as a store's labels are."""
    placed = batch.on(teacher.device, teacher.memory_format)
    with autocast(teacher.device, teacher.precision):
        raw_BCHW = teacher.network(placed.pictures_B3HW)
    entries_BAEHW = teacher.entries(raw_BCHW)
    labels_BAEHW = filter_entries(entries_BAEHW, torch.tensor(teacher.anchors), DEFAULT_FM_NMS)
    return replace(placed, teachers_SBAEHW=labels_BAEHW.float()[None], weights_SB=torch.ones(1, len(batch.labelled_B)))


def annotated(scene: Scene) -> tuple[list[Picture], AnnotationSet]:
    """The photographs that are annotated, and their annotations."""
    found = find_pictures([str(scene.photographs)])
    annotations = read_annotations(scene.annotations, "voc", CLASSES).bind(picture.key for picture in found)
    known = set(annotations.labelled(picture.key for picture in found))
    return [picture for picture in found if picture.key in known], annotations


def plain_pictures(scene: Scene) -> list[TrainingPicture]:
    """The annotated photographs without soft labels."""
    chosen, annotations = annotated(scene)
    return [TrainingPicture(picture.key, picture.path, partial(annotations.truth, picture.key)) for picture in chosen]


def stored_pictures(scene: Scene, plain: Sequence[TrainingPicture], teacher: Detector) -> list[TrainingPicture]:
    """The same pictures with soft labels: labelled now, into a store, and read from it as `train` does."""
    labelling = prepare(scene, teacher, "float32", [Picture(item.key, item.path) for item in plain])
    with tempfile.TemporaryDirectory(dir=scene.work) as folder:
        path = Path(folder) / "labels.store"
        labelling.label_into(path, labelling.teacher())
        store = LabelStore.open(path)
        table = load_kept_slots(store)
    cells = scene.input_size // 32
    grid = Grid(teacher.anchors, cells, cells)
    return [
        replace(
            item,
            stored=(StoredLabels(table, row, digest.tobytes(), grid, "letterbox", scene.input_size, scene.input_size),),
        )
        for row, (item, digest) in enumerate(zip(plain, store.manifest.digests, strict=True))
    ]


def measure_training(scene: Scene, precisions: Sequence[Precision], *, cache_bytes: int = 0) -> list[Finding]:
    """Training from a store, over training without distillation and over the same with the teacher in the loop."""
    detector = random_teacher(scene)
    plain = plain_pictures(scene)
    stored = stored_pictures(scene, plain, detector)
    findings = []
    for precision in precisions:
        teacher = make_teacher(scene, detector, precision)
        courses = {
            PLAIN: Course(scene, plain, precision, cache_bytes=cache_bytes),
            STORE: Course(scene, stored, precision, cache_bytes=cache_bytes),
            LOOP: Course(scene, plain, precision, cache_bytes=cache_bytes, teacher=teacher),
        }
        for course in courses.values():
            course.train(1)
        turns = {name: partial(course.train, scene.train_batches) for name, course in courses.items()}
        for other, what, goal, rounds in (
            (PLAIN, "of training without distillation", GOAL_STORE, 2 * scene.rounds),  # the difference is small
            (LOOP, "times that with the teacher in the loop", GOAL_LOOP, scene.rounds),
        ):
            rates = in_turn({STORE: turns[STORE], other: turns[other]}, rounds)
            findings.append(
                Finding(
                    f"train from a store, {precision}",
                    what,
                    ratio(rates[STORE], rates[other]),
                    goal,
                    details=f"{spread(rates[STORE]).median:.1f} against {spread(rates[other]).median:.1f} pictures/s",
                )
            )
        alone = in_turn(
            {
                "batches made, not learnt from": partial(courses[STORE].load, scene.train_batches),
                "steps on one batch at hand": partial(courses[STORE].step, scene.train_batches),
            },
            scene.rounds,
        )
        findings += [
            Finding(f"{name}, {precision}", "pictures/s", spread(values), digits=1) for name, values in alone.items()
        ]
    return findings
