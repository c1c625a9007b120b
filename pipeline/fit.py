"""The training of one student: epochs, checkpoints, validation, and the way back into an interrupted run."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from data.errors import WorkLeftError
from data.picture_cache import PictureCache
from pipeline.epoch_metrics import EpochMetrics
from pipeline.interrupt import Interruption
from pipeline.progress import Progress
from pipeline.run_folder import Position, RunFolder
from stages.networks.network import Detector
from stages.student.loader import stream_batches
from stages.student.order import batches_per_epoch, epoch_batches
from stages.student.samples import SampleSettings, TrainingPicture
from stages.student.schedule import learning_rate, prior_box_steps
from stages.student.trainer import Trainer


@dataclass(frozen=True, slots=True)
class FitSettings:
    """The numbers of a training that are neither the network's nor the loss's."""

    epochs: int
    batch_size: int
    input_size: int
    multi_scale: bool
    learning_rate: float
    labelled_share: float | None
    validate_every: int
    threads: int


@dataclass(frozen=True, slots=True)
class Validator:
    """What a network is judged by. score: higher is better; `measures` go into the metrics under their names."""

    name: str
    measure: Callable[[Detector], Mapping[str, float]]
    score: Callable[[Mapping[str, float]], float]


@dataclass(frozen=True, slots=True)
class FitResult:
    """Where a training ended."""

    epochs: int
    best: float | None
    seconds: float


def fit(
    run: RunFolder,
    trainer: Trainer,
    pictures: Sequence[TrainingPicture],
    labelled: Sequence[bool],
    samples: SampleSettings,
    settings: FitSettings,
    validator: Validator | None,
    save_detector: Callable[[Detector, str, Mapping[str, Any]], None],
    *,
    cache: PictureCache,
    progress: Progress,
    interruption: Interruption,
) -> FitResult:
    """Train until the last epoch, from where the run folder says.

    labelled: per picture, whether it is annotated. save_detector(detector, "best" or "final", metadata) keeps a
    network. Raises WorkLeftError when interrupted (the state is saved first), when the loss is not finite, or when a
    distillation term did nothing over an epoch.
    """
    began = time.monotonic()
    position, metrics = Position(0, 0, None), EpochMetrics()
    saved = run.load_state()
    if saved is not None:
        tensors, position, sums = saved
        trainer.load_state(tensors)
        metrics = EpochMetrics(sums)
    run.drop_metrics_after(position.epoch)

    flags = np.array(labelled, bool)
    known, unknown = np.flatnonzero(flags), np.flatnonzero(~flags)
    per_epoch = batches_per_epoch(len(pictures), settings.batch_size)
    total_steps = settings.epochs * per_epoch
    prior_steps = prior_box_steps(total_steps)
    with_teacher = any(item.stored is not None for item in pictures)
    progress.skip(position.epoch * per_epoch + position.batch)

    with SummaryWriter(run.tensorboard, purge_step=position.epoch + 1) as board:
        for epoch in range(position.epoch, settings.epochs):
            epoch_began = time.monotonic()
            order = epoch_batches(
                known,
                unknown,
                batch_size=settings.batch_size,
                labelled_share=settings.labelled_share,
                seed=samples.seed,
                epoch=epoch,
            )
            first = position.batch if epoch == position.epoch else 0
            stream = stream_batches(
                pictures,
                order,
                samples,
                cache,
                epoch=epoch,
                first=first,
                input_size=settings.input_size,
                multi_scale=settings.multi_scale,
                with_teacher=with_teacher,
                threads=settings.threads,
            )
            for number, batch in enumerate(stream, first):
                step = epoch * per_epoch + number
                terms = trainer.step(
                    batch,
                    learning_rate(step, total_steps, settings.learning_rate),
                    prior_box=step < prior_steps,
                )
                metrics.add(terms, batch)
                progress.note(f"epoch {epoch + 1}/{settings.epochs}, loss {terms['total']:.3g}")
                progress.advance()
                if interruption:
                    stream.close()
                    run.save_state(trainer.state(), Position(epoch, number + 1, position.best), metrics.sums)
                    raise WorkLeftError(
                        f"interrupted after batch {number + 1} of epoch {epoch + 1}; the state is saved. "
                        f"The same command with --resume goes on"
                    )
            metrics.check_distillation(samples.classes, with_teacher)
            rate = learning_rate((epoch + 1) * per_epoch - 1, total_steps, settings.learning_rate)
            row = {"epoch": epoch + 1, "step": (epoch + 1) * per_epoch, "learning_rate": rate} | metrics.row()
            best = position.best
            last_epoch = epoch + 1 == settings.epochs
            if validator is not None and (last_epoch or (epoch + 1) % settings.validate_every == 0):
                progress.note("validating")
                measures = validator.measure(trainer.evaluated())
                row |= measures
                if best is None or validator.score(measures) > best:
                    best = validator.score(measures)
                    save_detector(trainer.evaluated(), "best", {"epoch": epoch + 1, **measures})
            if last_epoch:
                save_detector(trainer.evaluated(), "final", {"epoch": epoch + 1})
            row["seconds"] = round(time.monotonic() - epoch_began, 3)
            position = Position(epoch + 1, 0, best)
            metrics = EpochMetrics()
            run.append_metrics(row)
            for name, value in row.items():
                board.add_scalar(name, value, epoch + 1)
            board.flush()  # a kill after this epoch's state is saved must not leave a gap in the curves
            run.save_state(trainer.state(), position, {})
    return FitResult(settings.epochs, position.best, time.monotonic() - began)
