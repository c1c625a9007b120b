"""What each worker did, in lines that can be added up: `STORE.work/workers/NAME.jsonl`. Nothing is decided by them."""

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from data.store.address import open_place
from data.store.place import Address, Place

FOLDER, SUFFIX = "workers", ".jsonl"


def worker_name(environment: Mapping[str, str] = os.environ) -> str:
    """Host and process, and the batch job where there is one: where to look when something went wrong."""
    name = f"{socket.gethostname()}-{os.getpid()}"
    task = environment.get("SLURM_ARRAY_TASK_ID")
    job = environment.get("SLURM_ARRAY_JOB_ID" if task else "SLURM_JOB_ID") or environment.get("PBS_JOBID")
    return name + (f"-job-{job}" if job else "") + (f"_{task}" if task else "")


class WorkerLog:
    """The lines of one worker. A line that can't be written is left out: it is not worth losing work for."""

    def __init__(self, store: Address | Place, worker: str) -> None:
        self.work, self.file = open_place(store).work, f"{FOLDER}/{worker}{SUFFIX}"

    def say(self, event: str, **values: Any) -> None:
        """Append one line."""
        line = json.dumps({"event": event, "time": round(time.time(), 3), **values}) + "\n"
        with contextlib.suppress(OSError):
            self.work.append(self.file, line.encode())


@dataclass(slots=True)
class WorkerSummary:
    """One worker's part. seconds: from its first line to its last. failed: shard to reason; end: why it left, or "" for
    one that is at work or died."""

    worker: str
    shards: int = 0
    pictures: int = 0
    seconds: float = 0.0
    failed: dict[int, str] = field(default_factory=dict)
    taken_over: list[tuple[int, str]] = field(default_factory=list)
    end: str = ""

    @property
    def pictures_per_second(self) -> float:
        """0 before its first shard."""
        return self.pictures / self.seconds if self.seconds else 0.0


def summaries(store: Address | Place, since: float = 0.0) -> list[WorkerSummary]:
    """Every worker that began after `since` (seconds since 1970), by name; lines that can't be read are passed over."""
    found, work = [], open_place(store).work
    for name in work.names(FOLDER):
        lines = [line for line in _lines(work.read(f"{FOLDER}/{name}")) if line["time"] >= since]
        if lines:
            found.append(_summary(name.removesuffix(SUFFIX), lines))
    return found


def _lines(log: bytes) -> Iterator[dict[str, Any]]:
    for line in log.splitlines():
        with contextlib.suppress(ValueError):  # the last line of a worker that was killed in it
            yield json.loads(line)


def _summary(worker: str, lines: list[dict[str, Any]]) -> WorkerSummary:
    summary = WorkerSummary(worker, seconds=lines[-1]["time"] - lines[0]["time"])
    for line in lines:
        match line["event"]:
            case "shard":
                summary.shards += 1
                summary.pictures += line["pictures"]
            case "failed":
                summary.failed[line["shard"]] = line["reason"]
            case "taken over":
                summary.taken_over.append((line["shard"], line["worker_before"]))
            case "end":
                summary.end = line["reason"]
    return summary
