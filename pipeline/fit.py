"""The training of one student: epochs of batches, from a position to the end, and when to stop."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from data.errors import WorkLeftError
from data.picture_cache import PictureCache
from pipeline.epoch_metrics import EpochMetrics
from pipeline.interrupt import Interruption
from pipeline.keeper import Keeper
from pipeline.progress import Progress
from pipeline.run_folder import Position
from stages.student.loader import stream_batches
from stages.student.order import batches_per_epoch, epoch_batches
from stages.student.rank_errors import of_all_ranks
from stages.student.samples import SampleSettings, TrainingPicture
from stages.student.schedule import learning_rate, prior_box_steps
from stages.student.trainer import Trainer


@dataclass(frozen=True, slots=True)
class FitSettings:
    """The numbers of a training that are neither the network's nor the loss's. threads: that read pictures."""

    epochs: int
    batch_size: int
    input_size: int
    multi_scale: bool
    learning_rate: float
    labelled_share: float | None
    threads: int


def fit(
    trainer: Trainer,
    pictures: Sequence[TrainingPicture],
    labelled: Sequence[bool],
    samples: SampleSettings,
    settings: FitSettings,
    keeper: Keeper,
    *,
    position: Position,
    sums: Mapping[str, float],
    cache: PictureCache,
    progress: Progress,
    interruption: Interruption,
) -> None:
    """Train from a position until the last epoch; the trainer has its state, and sums are of the epoch begun.

    Every rank of the trainer calls it with the same pictures, takes its slice of each batch, and stops at the same
    step. labelled: per picture, whether it is annotated. Raises WorkLeftError, on all ranks, when one was interrupted
    (the state is kept first), when the loss is not finite, or when a distillation term did nothing over an epoch.
    """
    ranks = trainer.ranks
    metrics = EpochMetrics(sums if ranks.first else None)
    flags = np.array(labelled, bool)
    known, unknown = np.flatnonzero(flags), np.flatnonzero(~flags)
    per_epoch = batches_per_epoch(len(pictures), settings.batch_size)
    total_steps = settings.epochs * per_epoch
    prior_steps = prior_box_steps(total_steps)
    teachers = max((stored.teacher + 1 for item in pictures for stored in item.stored), default=0)
    progress.skip(position.epoch * per_epoch + position.batch)

    for epoch in range(position.epoch, settings.epochs):
        began = time.monotonic()
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
            [ranks.slice_of(batch) for batch in order],
            samples,
            cache,
            epoch=epoch,
            first=first,
            input_size=settings.input_size,
            multi_scale=settings.multi_scale,
            teachers=teachers,
            threads=settings.threads,
        )
        for number, batch in enumerate(stream, first):
            step = epoch * per_epoch + number
            terms = trainer.step(
                batch,
                learning_rate(step, total_steps, settings.learning_rate),
                prior_box=step < prior_steps,
                whole=len(order[number]),
            )
            metrics.add(terms, batch)
            progress.note(f"epoch {epoch + 1}/{settings.epochs}, loss {terms['total']:.3g}")
            progress.advance()
            if ranks.any(bool(interruption)):
                stream.close()
                keeper.interrupted(epoch, number + 1, metrics.of_all(ranks).sums)
                ranks.wait()  # a rank that has left may be what makes somebody end the others
                raise of_all_ranks(
                    WorkLeftError(
                        f"interrupted after batch {number + 1} of epoch {epoch + 1}; the state is saved. "
                        f"The same command with --resume goes on"
                    )
                )
        metrics = metrics.of_all(ranks)
        ranks.agree(partial(metrics.check_distillation, samples.classes, teachers > 0))
        rate = learning_rate((epoch + 1) * per_epoch - 1, total_steps, settings.learning_rate)
        row = {"epoch": epoch + 1, "step": (epoch + 1) * per_epoch, "learning_rate": rate} | metrics.row()
        keeper.epoch_done(epoch, row, began, last=epoch + 1 == settings.epochs)
        metrics = EpochMetrics()
