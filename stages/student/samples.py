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
    """Where a picture's soft labels are: a table, its row, and the geometry they were made in."""

    table: SoftLabelTable
    row: int
    digest: bytes
    grid: Grid
    resize: Resize
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class TrainingPicture:
    """A picture to train on. `truth` gives its annotation for a decoded size, or is None where it is unlabelled;
    `stored` is None where no store has labelled it."""

    key: str
    path: Path
    truth: Callable[[int, int], Truth | None] | None
    stored: StoredLabels | None


@dataclass(frozen=True, slots=True)
class Sample:
    """One view of one picture.

    picture: float32 [3, H, W]. boxes: float32 [n, 4] cxcywh relative to the input. labels: int64 [n]. labelled: it
    takes part in the region loss. teacher: float32 [A, 5+K, H/32, W/32], or None: its teacher terms are masked.
    problem: why a picture or its soft labels could not be used, or "".
    """

    picture: NDArray[np.float32]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    labelled: bool
    teacher: NDArray[np.float32] | None
    collisions: int
    problem: str


@dataclass(frozen=True, slots=True)
class Batch:
    """B samples as tensors. Truth is padded to the longest: boxes with zeros, labels with −1. teacher is None where
    the student has none; `valid` says which pictures have teacher labels."""

    pictures_B3HW: Tensor
    boxes_BT4: Tensor
    labels_BT: Tensor
    labelled_B: Tensor
    teacher_BAEHW: Tensor | None
    valid_B: Tensor
    collisions: int
    kept_slots: int
    problems: tuple[str, ...]

    def on(self, device: torch.device, memory_format: torch.memory_format) -> "Batch":
        """The batch with its large tensors on a device. The masks stay: asking them should not wait for the device."""
        teacher = self.teacher_BAEHW
        return replace(
            self,
            pictures_B3HW=self.pictures_B3HW.to(device, memory_format=memory_format, non_blocking=True),
            boxes_BT4=self.boxes_BT4.to(device, non_blocking=True),
            labels_BT=self.labels_BT.to(device, non_blocking=True),
            teacher_BAEHW=None if teacher is None else teacher.to(device, non_blocking=True),
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
    picture, problem = _read(item, cache)
    if picture is None:
        grey = np.full((3, height, width), 0.5, np.float32)
        return Sample(grey, *_no_boxes(), labelled=False, teacher=None, collisions=0, problem=problem)
    rows, columns = picture.shape[:2]
    rng = sample_rng(settings.seed, epoch, item.key)
    view = draw_view(rng, settings.augment, settings.resize, rows, columns, height, width)
    pixels = distort(render(picture, view), rng, settings.augment)

    truth = item.truth(rows, columns) if item.truth else None
    boxes, labels = place_truth(truth, view, rows, columns) if truth is not None else _no_boxes()
    teacher, collisions = None, 0
    stored = item.stored
    if stored is not None and not problem:
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
        teacher, collisions = target.dense, target.collisions
    return Sample(pixels, boxes, labels, truth is not None, teacher, collisions, problem)


def _read(item: TrainingPicture, cache: PictureCache) -> tuple[NDArray[np.uint8] | None, str]:
    cached = cache.get(item.key)
    if cached is not None:
        return cached, ""
    data = item.path.read_bytes()
    changed = item.stored is not None and hashlib.sha256(data).digest() != item.stored.digest
    try:
        picture = decode(data)
    except RejectedPictureError as error:
        return None, f"{item.key}: {error.reason}"
    if changed:
        return picture, f"{item.key}: differs from the picture that was labelled"
    cache.put(item.key, picture)
    return picture, ""


def _no_boxes() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    return np.zeros((0, 4), np.float32), np.zeros(0, np.int64)


def collate(samples: Sequence[Sample], settings: SampleSettings, *, with_teacher: bool) -> Batch:
    """Stack samples of one input size."""
    longest = max(len(sample.labels) for sample in samples)
    boxes = np.zeros((len(samples), longest, 4), np.float32)
    labels = np.full((len(samples), longest), -1, np.int64)
    for i, sample in enumerate(samples):
        boxes[i, : len(sample.labels)] = sample.boxes
        labels[i, : len(sample.labels)] = sample.labels
    height, width = samples[0].picture.shape[1:]
    teacher, kept = None, 0
    if with_teacher:
        shape = (len(settings.anchors), 5 + settings.classes, height // 32, width // 32)
        dense = np.zeros((len(samples), *shape), np.float32)
        for i, sample in enumerate(samples):
            if sample.teacher is not None:
                dense[i] = sample.teacher
        teacher, kept = torch.from_numpy(dense), int(np.count_nonzero(dense[:, :, 4]))
    return Batch(
        torch.from_numpy(np.stack([sample.picture for sample in samples])),
        torch.from_numpy(boxes),
        torch.from_numpy(labels),
        torch.tensor([sample.labelled for sample in samples]),
        teacher,
        torch.tensor([sample.teacher is not None for sample in samples]),
        sum(sample.collisions for sample in samples),
        kept,
        tuple(sample.problem for sample in samples if sample.problem),
    )
