"""A training goes on where its run folder says, and all its ranks from the same state."""

from collections.abc import Sequence

from data.checkpoint import checksum
from data.errors import WorkLeftError
from pipeline.run_folder import Position, RunFolder
from stages.student.trainer import Trainer


def take_up(run: RunFolder, trainer: Trainer) -> tuple[Position, dict[str, float]]:
    """Load the run's last state, if there is one, into the trainer: the position, and the sums of the epoch begun.

    Every rank loads it by itself. WorkLeftError, on all of them, where one sees another state than the first;
    RequestError where the state can't be read or is of another student.
    """
    ranks = trainer.ranks
    position, sums, seen = ranks.agree(lambda: _load(run, trainer))
    ranks.agree(lambda: _require_alike(run, ranks.gather(seen)))
    return position, sums


def _load(run: RunFolder, trainer: Trainer) -> tuple[Position, dict[str, float], str]:
    saved = run.load_state()
    if saved is None:
        return Position(0, 0, None), {}, "none"
    tensors, position, sums = saved
    trainer.load_state(tensors)
    done = f"{position.epoch} epochs and {position.batch} batches"
    return position, sums, f"{done}, checksum {checksum('', tensors)}"


def _require_alike(run: RunFolder, seen: Sequence[str]) -> None:
    for rank, state in enumerate(seen):
        if state != seen[0]:
            raise WorkLeftError(
                f"the ranks see different states in {run.last} (rank 0: {seen[0]}; rank {rank}: {state}). The run "
                "folder must be on a file system that all ranks share and see alike; once it is, the same command "
                "with --resume goes on"
            )
