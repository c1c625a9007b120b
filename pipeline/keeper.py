"""What a training leaves behind as it goes: metrics, curves, the best network, the state to go on from.

The first rank keeps it; the others train beside it and keep nothing.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from torch.utils.tensorboard import SummaryWriter

from pipeline.progress import Progress
from pipeline.run_folder import Position, RunFolder
from stages.networks.network import Detector
from stages.student.trainer import Trainer


@dataclass(frozen=True, slots=True)
class Validator:
    """What a network is judged by. score: higher is better; `measures` go into the metrics under their names."""

    name: str
    measure: Callable[[Detector], Mapping[str, float]]
    score: Callable[[Mapping[str, float]], float]


class Keeper(Protocol):
    """What `fit` tells where the training stands."""

    def interrupted(self, epoch: int, batches: int, sums: Mapping[str, float]) -> None:
        """So many batches of an epoch, counted from 0, are done, and there will be no more now."""

    def epoch_done(self, epoch: int, row: Mapping[str, Any], began: float, *, last: bool) -> None:
        """An epoch, counted from 0, is done; it began then by time.monotonic."""


class Bystander:
    """Keeps nothing."""

    def interrupted(self, epoch: int, batches: int, sums: Mapping[str, float]) -> None:
        pass

    def epoch_done(self, epoch: int, row: Mapping[str, Any], began: float, *, last: bool) -> None:
        pass


class RunKeeper:
    """Keeps a run in its folder. best: the best score of a validation so far."""

    def __init__(
        self,
        run: RunFolder,
        trainer: Trainer,
        validator: Validator | None,
        validate_every: int,
        save_detector: Callable[[Detector, str, Mapping[str, Any]], None],
        board: SummaryWriter,
        progress: Progress,
        best: float | None,
    ) -> None:
        self.run, self.trainer, self.board, self.progress = run, trainer, board, progress
        self.validator, self.validate_every = validator, validate_every
        self.save_detector = save_detector
        self.best = best

    def interrupted(self, epoch: int, batches: int, sums: Mapping[str, float]) -> None:
        self.run.save_state(self.trainer.state(), Position(epoch, batches, self.best), sums)

    def epoch_done(self, epoch: int, row: Mapping[str, Any], began: float, *, last: bool) -> None:
        row = dict(row)
        if self.validator is not None and (last or (epoch + 1) % self.validate_every == 0):
            row |= self._validate(self.validator, epoch)
        if last:
            self.save_detector(self.trainer.evaluated(), "final", {"epoch": epoch + 1})
        row["seconds"] = round(time.monotonic() - began, 3)
        self.run.append_metrics(row)
        for name, value in row.items():
            self.board.add_scalar(name, value, epoch + 1)
        self.board.flush()  # a kill after this epoch's state is saved must not leave a gap in the curves
        self.run.save_state(self.trainer.state(), Position(epoch + 1, 0, self.best), {})

    def _validate(self, validator: Validator, epoch: int) -> Mapping[str, float]:
        self.progress.note("validating")
        measures = validator.measure(self.trainer.evaluated())
        if self.best is None or validator.score(measures) > self.best:
            self.best = validator.score(measures)
            self.save_detector(self.trainer.evaluated(), "best", {"epoch": epoch + 1, **measures})
        return measures


@contextmanager
def keeping(
    run: RunFolder,
    position: Position,
    trainer: Trainer,
    validator: Validator | None,
    validate_every: int,
    save_detector: Callable[[Detector, str, Mapping[str, Any]], None],
    progress: Progress,
) -> Iterator[RunKeeper]:
    """The keeper of a run that goes on at a position: what is there of later epochs is forgotten.

    save_detector(detector, "best" or "final", metadata) keeps a network.
    """
    run.drop_metrics_after(position.epoch)
    with SummaryWriter(run.tensorboard, purge_step=position.epoch + 1) as board:
        yield RunKeeper(run, trainer, validator, validate_every, save_detector, board, progress, position.best)
