"""What a Dask worker does for `distill label --cluster`: one task, which works on the store until nothing is left."""

import time
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Literal

import psutil
import torch
from distributed import Status, Worker, get_worker

from data.errors import RequestError, WorkLeftError
from pipeline.interrupt import Interruption
from pipeline.label_command import label_as_worker
from pipeline.label_plan import LabelRequest
from pipeline.worker import WorkerOptions, cores


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """How a worker's part ended. made: shards. ended: "done" where it left nothing that it could have made."""

    ended: Literal["done", "left", "refused"]
    made: int
    said: str


class UnwantedTask(Interruption):
    """True when the Dask worker is told to close, as it is by SIGTERM, and when nobody waits for the task any more, as
    when its client died: the task's thread hears no signal, and Dask lets it run."""

    def __init__(self, worker: Worker) -> None:
        super().__init__()
        self.worker, self.task = worker, worker.get_current_task()

    def __bool__(self) -> bool:
        task = self.worker.state.tasks.get(self.task)
        return self.worker.status not in (Status.running, Status.paused) or task is None or task.state == "cancelled"


def label_task(request: LabelRequest, options: WorkerOptions, cpus: int | None) -> WorkerReport:
    """Label on this Dask worker. options.time_limit_s: of the batch job, which began with this process; cpus: it has.

    On a machine with several GPUs that all workers see, each takes the one of its number. Errors a user can cause come
    back in the report; others are raised, and Dask shows them with their worker.
    """
    worker = get_worker()
    torch.set_num_threads(cpus or cores(options.share))  # Dask starts its workers with one
    if options.share > 1 and request.device in ("auto", "cuda") and torch.cuda.device_count() > 1:
        request = replace(request, device=f"cuda:{int(worker.name) % torch.cuda.device_count()}")
    if options.time_limit_s is not None:
        age_s = time.time() - psutil.Process().create_time()
        options = replace(options, time_limit_s=options.time_limit_s - age_s)
    try:
        result = label_as_worker(request, options, lambda: nullcontext(UnwantedTask(worker)))
    except RequestError as error:
        return WorkerReport("refused", 0, str(error))
    except (WorkLeftError, OSError) as error:
        return WorkerReport("left", 0, str(error))
    return WorkerReport("done", result["shards_now"], result["text"])
