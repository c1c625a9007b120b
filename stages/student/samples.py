"""From a picture on disk to what the student sees of it: one view, its truth and its teacher's labels, moved alike."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.augment import AugmentConfig, distort, draw_view, sample_rng
from data.boxes import Truth
from data.images import RejectedPictureError, decode
from data.picture_cache import PictureCache
from data.store.slots import SoftLabelTable
from data.views import Resize, render, resize_view
from stages.student.place_truth import place_truth
from stages.student.soft_targets import Grid, project_soft_labels


@dataclass(frozen=True, slots=True)
class StoredLabels:
    """Where a picture's soft labels are: a table, its row, and the geometry they were made in.

    teacher: number of the store among those of the training. weight: of its loss beside other teachers', None for an
    equal share among those that have a say.
    """

    table: SoftLabelTable
    row: int
    digest: bytes
    grid: Grid
    resize: Resize
    height: int
    width: int
    teacher: int = 0
    weight: float | None = None


@dataclass(frozen=True, slots=True)
class TrainingPicture:
    """A picture to train on. `truth` gives its annotation for a decoded size, or is None where it is unlabelled;
    `stored` has its soft labels, one for each store that labelled it."""

    key: str
    path: Path
    truth: Callable[[int, int], Truth | None] | None
    stored: tuple[StoredLabels, ...] = ()


@dataclass(frozen=True, slots=True)
class TeacherTarget:
    """What one teacher says of a view. dense: float32 [A, 5+K, H/32, W/32], in the student's slots."""

    teacher: int
    weight: float
    dense: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Sample:
    """One view of one picture.

    picture: float32 [3, H, W]. boxes: float32 [n, 4] cxcywh relative to the input. labels: int64 [n]. labelled: it
    takes part in the region loss. teachers: those that have a say; without any the teacher terms are masked.
    problem: why a picture or its soft labels could not be used, or "".
    """

    picture: NDArray[np.float32]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    labelled: bool
    teachers: tuple[TeacherTarget, ...]
    collisions: int
    problem: str


@dataclass(frozen=True, slots=True)
class Batch:
    """B samples as tensors. Truth is padded to the longest: boxes with zeros, labels with −1. teachers_SBAEHW has a
    layer for each of S stores, None where the student has no teacher; `weights` is 0 where a store has no labels of a
    picture."""

    pictures_B3HW: Tensor
    boxes_BT4: Tensor
    labels_BT: Tensor
    labelled_B: Tensor
    teachers_SBAEHW: Tensor | None
    weights_SB: Tensor
    collisions: int
    kept_slots: int
    problems: tuple[str, ...]

    def on(self, device: torch.device, memory_format: torch.memory_format) -> "Batch":
        """The batch with its large tensors on a device. Mask and weights stay: asking them should not wait for it."""
        teachers = self.teachers_SBAEHW
        return replace(
            self,
            pictures_B3HW=self.pictures_B3HW.to(device, memory_format=memory_format, non_blocking=True),
            boxes_BT4=self.boxes_BT4.to(device, non_blocking=True),
            labels_BT=self.labels_BT.to(device, non_blocking=True),
            teachers_SBAEHW=None if teachers is None else teachers.to(device, non_blocking=True),
        )


@dataclass(frozen=True, slots=True)
class SampleSettings:
    """What every sample is made with. anchors: the student's, in cells."""

    anchors: tuple[tuple[float, float], ...]
    classes: int
    resize: Resize
    augment: AugmentConfig
    seed: int


def make_sample(
    item: TrainingPicture, settings: SampleSettings, cache: PictureCache, *, epoch: int, height: int, width: int
) -> Sample:
    """Read, look at from a drawn view, and move truth and soft labels with it.

    A picture that can't be decoded, or differs from the one that was labelled, is no error in the middle of a
    training: it is masked, and `problem` says so, for the metrics.
    """
    picture, valid, problem = _read(item, cache)
    if picture is None:
        grey = np.full((3, height, width), 0.5, np.float32)
        return Sample(grey, *_no_boxes(), labelled=False, teachers=(), collisions=0, problem=problem)
    rows, columns = picture.shape[:2]
    rng = sample_rng(settings.seed, epoch, item.key)
    view = draw_view(rng, settings.augment, settings.resize, rows, columns, height, width)
    pixels = distort(render(picture, view), rng, settings.augment)

    truth = item.truth(rows, columns) if item.truth else None
    boxes, labels = place_truth(truth, view, rows, columns) if truth is not None else _no_boxes()
    teachers, collisions = [], 0
    for stored in valid:
        kept = stored.table.kept(stored.row)
        target = project_soft_labels(
            kept.indices,
            kept.entries,
            stored.grid,
            resize_view(stored.resize, rows, columns, stored.height, stored.width),
            Grid(settings.anchors, height // 32, width // 32),
            view,
            rows,
            columns,
        )
        weight = 1 / len(valid) if stored.weight is None else stored.weight
        teachers.append(TeacherTarget(stored.teacher, weight, target.dense))
        collisions += target.collisions
    return Sample(pixels, boxes, labels, truth is not None, tuple(teachers), collisions, problem)


def _read(item: TrainingPicture, cache: PictureCache) -> tuple[NDArray[np.uint8] | None, tuple[StoredLabels, ...], str]:
    """The picture, the soft labels that are of this very file, and what is wrong with it or with the others."""
    cached = cache.get(item.key)
    if cached is not None:
        return cached, item.stored, ""
    data = item.path.read_bytes()
    digest = hashlib.sha256(data).digest() if item.stored else b""
    valid = tuple(stored for stored in item.stored if stored.digest == digest)
    try:
        picture = decode(data)
    except RejectedPictureError as error:
        return None, (), f"{item.key}: {error.reason}"
    if len(valid) < len(item.stored):
        return picture, valid, f"{item.key}: differs from the picture that was labelled"
    cache.put(item.key, picture)
    return picture, valid, ""


def _no_boxes() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    return np.zeros((0, 4), np.float32), np.zeros(0, np.int64)


def collate(samples: Sequence[Sample], settings: SampleSettings, *, teachers: int) -> Batch:
    """Stack samples of one input size. teachers: stores of the training that soft labels may come from."""
    longest = max(len(sample.labels) for sample in samples)
    boxes = np.zeros((len(samples), longest, 4), np.float32)
    labels = np.full((len(samples), longest), -1, np.int64)
    for i, sample in enumerate(samples):
        boxes[i, : len(sample.labels)] = sample.boxes
        labels[i, : len(sample.labels)] = sample.labels
    height, width = samples[0].picture.shape[1:]
    weights = np.zeros((teachers, len(samples)), np.float32)
    targets, kept = None, 0
    if teachers:
        shape = (len(settings.anchors), 5 + settings.classes, height // 32, width // 32)
        dense = np.zeros((teachers, len(samples), *shape), np.float32)
        for i, sample in enumerate(samples):
            for target in sample.teachers:
                dense[target.teacher, i] = target.dense
                weights[target.teacher, i] = target.weight
        targets, kept = torch.from_numpy(dense), int(np.count_nonzero(dense[:, :, :, 4]))
    return Batch(
        torch.from_numpy(np.stack([sample.picture for sample in samples])),
        torch.from_numpy(boxes),
        torch.from_numpy(labels),
        torch.tensor([sample.labelled for sample in samples]),
        targets,
        torch.from_numpy(weights),
        sum(sample.collisions for sample in samples),
        kept,
        tuple(sample.problem for sample in samples if sample.problem),
    )
