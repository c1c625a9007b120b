"""`distill label --cluster`: Dask brings workers to the store; the store's ledger says what is done.

Nothing depends on the scheduler's memory: its task per worker is "label until nothing is left". If it, this client, or
a worker dies, what was published stays, and the same command goes on.
"""

import logging
import sys
import time
from asyncio import CancelledError
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.errors import RequestError
from pipeline.batch_cluster import BATCH_SYSTEMS, batch_cluster
from pipeline.cluster_request import ClusterRequest
from pipeline.interrupt import Interruption, stop_on_warning
from pipeline.label_plan import LabelRequest
from pipeline.label_store import check_request
from pipeline.progress import show_progress
from pipeline.store_watch import StoreWatch
from pipeline.worker import WorkerOptions, cores

if TYPE_CHECKING:
    from distributed import Client, Future  # types only: the extra `cluster` may be missing

POLL_S = 1.0
MARGIN_S = 120.0
"""Seconds of a batch job's time that no shard is planned into."""
CLIENT_LOGGERS = ("asyncio", "distributed.client", "distributed.core", "tornado.application")


def run_label_on_cluster(
    request: LabelRequest,
    options: WorkerOptions,
    where: str,
    cluster: ClusterRequest,
    walltime_s: float | None,
) -> dict[str, Any]:
    """`run_label` by Dask workers; returns and raises as it does, with a line per worker.

    where: local[:n], slurm, pbs, lsf, sge, or the address of a scheduler. Raises RequestError where Dask is not
    installed or the batch system refuses.
    """
    try:
        import dask
        from distributed import Client
    except ImportError as error:
        raise RequestError("--cluster needs Dask's scheduler: pip install 'distill[cluster]'") from error
    count, options = _workers(where, cluster, options)
    check_request(request)
    if options.time_limit_s is None and walltime_s is not None:
        options = replace(options, time_limit_s=walltime_s - MARGIN_S)
    for name in CLIENT_LOGGERS:
        logging.getLogger(name).addFilter(_no_lost_connection)
    with ExitStack() as stack:
        # Workers are killed on purpose where machines are shared; a task is none the worse for it.
        stack.enter_context(dask.config.set({"distributed.scheduler.allowed-failures": 1_000_000}))
        progress = stack.enter_context(show_progress("labelling", 1, "pictures"))
        interruption = stack.enter_context(stop_on_warning())
        address = (
            stack.enter_context(_cluster(request, where, count or 1, cluster, walltime_s))
            if "://" not in where
            else where
        )
        client = stack.enter_context(Client(address, timeout=60))
        _say(f"Dask's dashboard: {client.dashboard_link}")
        watch = StoreWatch(request.store, progress)
        cpus = cluster.cpus_per_worker or (1 if where in BATCH_SYSTEMS else None)
        why = Crew(client, request, options, count, cpus).work(watch, interruption)
    watch.look()
    if not watch.whole:
        raise watch.left(why)
    return watch.result()


class Crew:
    """The Dask workers that come and go, with a task each."""

    def __init__(
        self, client: "Client", request: LabelRequest, options: WorkerOptions, count: int | None, cpus: int | None
    ) -> None:
        """count: workers wanted, None for all that are there. cpus: of each, None where this command has no say."""
        self.client, self.request, self.options, self.count, self.cpus = client, request, options, count, cpus
        assert client.scheduler is not None, "the client is not connected"
        self.scheduler = client.scheduler.address
        self.tasks: dict[str, Future[Any]] = {}
        self.ended: dict[str, str] = {}

    def work(self, watch: StoreWatch, interruption: Interruption) -> str:
        """Until the store is whole; else why not."""
        while not interruption:
            watch.look()
            there = self._there()
            if there is None:
                return f"Dask's scheduler at {self.scheduler} is gone"
            self._let_the_dead_go(there)
            if watch.whole and not self.tasks:
                return ""
            self._collect()
            if not watch.whole:
                for address in sorted(there - self.tasks.keys() - self.ended.keys()):
                    if self.count is None or len(self.tasks) < self.count:
                        self._begin(address)
                if there and not self.tasks and there <= self.ended.keys():
                    watch.look()
                    return "" if watch.whole else "; ".join(sorted(set(self.ended.values())))
            time.sleep(POLL_S)
        return "interrupted"

    def _there(self) -> set[str] | None:
        """Addresses of the workers; None where the scheduler is gone. Nobody waits for one that may come back at the
        same address: its workers have left with it."""
        if self.client.status != "running":
            return None
        try:
            return set(self.client.nthreads())
        except OSError:
            return None

    def _begin(self, address: str) -> None:
        from pipeline.dask_worker import label_task

        self.tasks[address] = self.client.submit(
            label_task,
            self.request,
            self.options,
            self.cpus,
            workers=[address],
            key=f"label-{address}-{time.time()}",
            pure=False,
        )

    def _let_the_dead_go(self, there: set[str]) -> None:
        for address in self.tasks.keys() - there:
            task = self.tasks[address]
            if task.status == "pending":
                _say(f"the worker at {address} died; the others make its shards")
                task.cancel()
                del self.tasks[address]
        for address in self.ended.keys() - there:
            del self.ended[address]

    def _collect(self) -> None:
        for address, task in list(self.tasks.items()):
            if not task.done():
                continue
            del self.tasks[address]
            if task.status == "cancelled":
                continue
            report = task.result()
            if report.ended == "refused":
                raise RequestError(report.said)
            self.ended[address] = report.said
            if report.ended == "left":
                _say(f"the worker at {address} left: {report.said}")
                # Its job may have no time left; where the cluster brings another one in its place, that goes on.
                self.client.retire_workers([address], close_workers=True)


def _workers(where: str, cluster: ClusterRequest, options: WorkerOptions) -> tuple[int | None, WorkerOptions]:
    """How many workers are wanted, None for all there are, and their options."""
    options = replace(options, among_many=True, listed=True, quiet=True)
    if "://" in where:
        return cluster.workers, options
    kind, _, number = where.partition(":")
    if kind == "local":
        if number and not (number.isdecimal() and int(number)):
            raise RequestError(f"--cluster {where}: give a number of workers after local:, such as local:4")
        count = int(number) if number else cluster.workers or cores()
        return count, replace(options, share=count)
    if kind not in BATCH_SYSTEMS or number:
        raise RequestError(
            f"--cluster {where}: give local, local:N, {', '.join(BATCH_SYSTEMS)}, or a scheduler's address "
            "(tcp://host:port)"
        )
    return cluster.workers or 1, options


def _cluster(request: LabelRequest, where: str, count: int, cluster: ClusterRequest, walltime_s: float | None) -> Any:
    """A cluster of so many workers, which ends with its context."""
    if where.startswith("local"):
        from distributed import LocalCluster

        return LocalCluster(n_workers=count, threads_per_worker=1, processes=True, memory_limit=0)
    if not isinstance(request.store, Path):
        raise RequestError(
            f"--cluster {where} keeps the logs of its jobs beside the store, and {request.store} is no folder: start "
            "workers by a batch script of distill label --worker, or name a scheduler that is there (tcp://host:port)"
        )
    jobs = batch_cluster(request.store, where, cluster, walltime_s)
    jobs.adapt(minimum=count, maximum=count, interval="5s")  # another job in the place of one that ended
    return jobs


def _say(text: str) -> None:
    print(f"distill: {text}", file=sys.stderr)


def _no_lost_connection(record: logging.LogRecord) -> bool:
    """A filter that drops Dask's tracebacks of a connection that broke, or that it no longer tries to make again: the
    command says so in a sentence."""
    return not (record.exc_info and isinstance(record.exc_info[1], OSError | CancelledError))
