"""`distill label --devices`: a worker process for each device of this machine."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.context import SpawnProcess
from typing import Any

import torch

from data.errors import RequestError, WorkLeftError
from pipeline.interrupt import Interrupted, Interruption, raise_on_warning, stop_on_warning
from pipeline.label_command import label_as_worker
from pipeline.label_plan import LabelRequest
from pipeline.label_store import check_request
from pipeline.progress import show_progress
from pipeline.store_watch import StoreWatch
from pipeline.worker import WorkerOptions
from stages.device import resolve_device

POLL_S = 0.5


def resolve_devices(text: str, device: str) -> list[str]:
    """Names of the devices of `--devices 4` or `--devices cuda:0,cuda:1`; RequestError where one is not there.

    device: what `--device` says. On the CPU a number is that of the processes.
    """
    if not text.isdecimal():
        return [str(resolve_device(name.strip())) for name in text.split(",")]
    count, kind = int(text), resolve_device(device).type
    there = torch.cuda.device_count() if kind == "cuda" else count
    if not 0 < count <= there:
        raise RequestError(
            f"--devices {text}: this machine has {there or 'any number of processes, at least 1'} {kind}"
        )
    return [f"cuda:{index}" for index in range(count)] if kind == "cuda" else ["cpu"] * count


def run_label_on_devices(request: LabelRequest, options: WorkerOptions, devices: Sequence[str]) -> dict[str, Any]:
    """`run_label` by a process per device; returns and raises as it does, with a line per worker.

    A process that dies is named; the others make its shards. A warning is passed on to all of them.
    """
    check_request(request)
    context = multiprocessing.get_context("spawn")  # CUDA and threads don't outlive a fork
    together = replace(options, among_many=True, listed=True, share=len(devices), quiet=True)
    processes = [
        context.Process(target=_work, args=(replace(request, device=device), together), name=device)
        for device in devices
    ]
    with show_progress("labelling", 1, "pictures") as progress, stop_on_warning() as interruption:
        watch = StoreWatch(request.store, progress)
        for process in processes:
            process.start()
        try:
            _wait(processes, watch, interruption)
        finally:
            for process in processes:
                if process.is_alive():
                    process.terminate()
                process.join()
    codes = [process.exitcode or 0 for process in processes]
    if 2 in codes:
        raise RequestError("a worker could not serve the request; what it said is above")
    watch.look()
    if not watch.whole:
        raise watch.left("interrupted" if interruption else "the workers ended before the store was whole")
    return watch.result()


def _wait(processes: list[SpawnProcess], watch: StoreWatch, interruption: Interruption) -> None:
    """Until all have ended."""
    named: set[int] = set()
    while any(process.is_alive() for process in processes):
        for process in processes:
            code, pid = process.exitcode, process.pid or 0
            if code is not None and code < 0 and pid not in named:
                named.add(pid)
                print(
                    f"distill: the worker on {process.name} (process {pid}) was ended by {signal.Signals(-code).name}; "
                    "the others make its shards",
                    file=sys.stderr,
                )
            elif code is None and interruption and pid not in named:
                named.add(pid)
                process.terminate()
        watch.look()
        time.sleep(POLL_S)


def _work(request: LabelRequest, options: WorkerOptions) -> None:
    """One process: its exit status is a command's."""
    try:
        with raise_on_warning():
            _heed_parent()
            label_as_worker(request, options, stop_on_warning)
    except RequestError as error:
        _leave(error, 2)
    except WorkLeftError as error:
        _leave(error, 1)
    except OSError as error:
        _leave(error, 1)
    except Interrupted:  # before its work began; the parent says what is left
        raise SystemExit(1) from None


def _heed_parent() -> None:
    """Take the end of the parent, even by kill -9, for a warning."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "this process was not started by multiprocessing"

    def watch() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def _leave(error: Exception, status: int) -> None:
    print(f"distill: {multiprocessing.current_process().name}: {error}", file=sys.stderr)
    raise SystemExit(status)
