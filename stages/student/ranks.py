"""The processes that train one student together: which slice of a batch is whose, and what they tell one another.

A training knows of them only what `Ranks` says; a process alone is the only rank of its training.
"""

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from data.errors import RequestError, WorkLeftError
from stages.device import resolve_device
from stages.networks.network import Detector
from stages.student.batch_norm import synchronise_batch_norm
from stages.student.rank_errors import LostRankError, is_lost_connection, of_all_ranks

PATIENCE = timedelta(hours=2)
"""How long a rank waits for another: as long as the first one may validate. That a rank died is noticed at once by
gloo, whose connection breaks; with NCCL by what started the ranks, which ends the others."""

VARIABLES = ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Ranks:
    """A process that trains alone. rank of size in all, local_rank of local_size on this machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def first(self) -> bool:
        """Whether this one keeps the run: it validates, writes, and speaks."""
        return self.rank == 0

    def slice_of(self, batch: NDArray[np.int64]) -> NDArray[np.int64]:
        """This rank's pictures of a batch: every size-th, as a batch may list its labelled pictures first."""
        return batch[self.rank :: self.size]

    def share_of(self, machine: int) -> int:
        """This rank's share of something that the machine has so much of, at least 1."""
        return max(1, machine // self.local_size)

    def machine_threads(self) -> int:
        """Threads of arithmetic for all ranks of this machine together."""
        return torch.get_num_threads()

    def device(self, name: str) -> torch.device:
        """The device of this rank. RequestError where there is none."""
        return resolve_device(name)

    def replicate(self, detector: Detector, *, synchronised: bool) -> nn.Module:
        """The detector as it is run for training: its gradients become the mean over the ranks. synchronised: batch
        norm takes its statistics from the whole batch, not from a rank's slice."""
        return detector

    def exchanging(self) -> AbstractContextManager[None]:
        """Around what exchanges something inside torch: LostRankError where another rank can't be reached."""
        return nullcontext()

    def gather(self, value: Result) -> list[Result]:
        """The values of all ranks, in their order, on every rank."""
        return [value]

    def sum(self, value: float) -> float:
        """The sum over the ranks."""
        return value

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank."""
        return flag

    def wait(self) -> None:
        """Until every rank is here."""
        self.sum(0.0)

    def sum_named(self, values: Mapping[str, float], alike: Collection[str]) -> dict[str, float]:
        """The sum over the ranks name by name, where a rank may lack some; what is `alike` on all is the first's."""
        first, *others = self.gather(dict(values))
        for part in others:
            for name in part.keys() - alike:
                first[name] = first.get(name, 0.0) + part[name]
        return first

    def agree(self, work: Callable[[], Result]) -> Result:
        """Do work that every rank can do or none: an error of one is raised on all of them."""
        return work()


class GroupedRanks(Ranks):
    """One of several processes, joined by torch's default process group: gloo between CPUs, NCCL between GPUs."""

    __slots__ = ()

    def machine_threads(self) -> int:
        # not torch's own number: torchrun limits every process to one thread
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    def device(self, name: str) -> torch.device:
        device = resolve_device(name)
        if device.type != "cuda":
            return device
        if ":" in name:
            raise RequestError(f"--device {name}: each of the {self.size} ranks takes a GPU of its own; give cuda")
        if self.local_size > torch.cuda.device_count():
            raise RequestError(
                f"{self.local_size} ranks on a machine with {torch.cuda.device_count()} CUDA devices: start one for "
                "each, or give --device cpu"
            )
        device = torch.device("cuda", self.local_rank)
        torch.cuda.set_device(device)
        return device

    def replicate(self, detector: Detector, *, synchronised: bool) -> nn.Module:
        if synchronised:
            synchronise_batch_norm(detector)
        with self.exchanging():
            return DistributedDataParallel(detector, gradient_as_bucket_view=True)

    def exchanging(self) -> AbstractContextManager[None]:
        return self._exchanging()

    @contextmanager
    def _exchanging(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            if not is_lost_connection(error):
                raise
            raise LostRankError(
                f"rank {self.rank} no longer reaches the others ({str(error).splitlines()[0]}). The same command with "
                "--resume goes on after the last state that was saved"
            ) from error

    def gather(self, value: Result) -> list[Result]:
        values: list[Any] = [None] * self.size
        with self.exchanging():
            dist.all_gather_object(values, value)
        return values

    def sum(self, value: float) -> float:
        total = torch.tensor(value, dtype=torch.float64)
        with self.exchanging():
            dist.all_reduce(total)
        return float(total)

    def any(self, flag: bool) -> bool:
        return self.sum(float(flag)) > 0

    def agree(self, work: Callable[[], Result]) -> Result:
        result, mine = None, None
        try:
            result = work()
        except (RequestError, WorkLeftError, OSError) as error:
            mine = error
        said = self.gather(None if mine is None else (isinstance(mine, RequestError), str(mine)))
        failed = [rank for rank, problem in enumerate(said) if problem is not None]
        if not failed:
            return result  # type: ignore[return-value]  # nothing was raised, so `work` has returned
        # Nobody leaves before all have heard it: one that has left breaks the others' wait.
        with suppress(WorkLeftError):
            self.wait()
        if mine is not None and failed[0] == self.rank:
            raise of_all_ranks(mine)
        by_request, message = said[failed[0]] or (False, "")
        message = message if len(failed) == self.size else f"rank {failed[0]}: {message}"
        raise of_all_ranks(RequestError(message) if by_request else WorkLeftError(message)) from mine


@contextmanager
def joined_ranks() -> Iterator[Ranks]:
    """The ranks that the environment speaks of, joined within the context; a process alone where it speaks of none.

    The variables are torchrun's. RequestError where some are missing, WorkLeftError where the others are not there.
    """
    size = int(os.environ.get("WORLD_SIZE", 1))
    if size == 1:
        yield Ranks()
        return
    missing = [name for name in VARIABLES if name not in os.environ]
    if missing:
        raise RequestError(
            f"WORLD_SIZE is {size}, but {', '.join(missing)} is not set: start the ranks with torchrun or --devices"
        )
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise WorkLeftError(f"the {size} ranks did not find one another: {error}") from error
    local = (int(os.environ[name]) for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE"))
    yield GroupedRanks(dist.get_rank(), size, *local)
    # only at a good end: after an error the other ranks may be gone, and this one ends anyway
    dist.destroy_process_group()
