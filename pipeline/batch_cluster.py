"""Dask workers as jobs of a batch system, through dask-jobqueue."""

import math
import shutil
from pathlib import Path
from typing import Any

from data.errors import RequestError
from data.store.layout import work_path
from pipeline.cluster_request import ClusterRequest

BATCH_SYSTEMS = {"slurm": "SLURMCluster", "pbs": "PBSCluster", "lsf": "LSFCluster", "sge": "SGECluster"}
GPU_DIRECTIVES = {"slurm": "--gres=gpu:{}", "lsf": '-gpu "num={}"', "sge": "-l gpu={}"}
"""PBS takes them within its `select`, and refuses `-l ngpus` beside that."""


def batch_cluster(store: Path, system: str, cluster: ClusterRequest, walltime_s: float | None) -> Any:
    """A cluster of dask-jobqueue that has no job yet, for workers on a store; the caller closes it.

    walltime_s: what cluster.walltime says, in seconds. Raises RequestError where dask-jobqueue or the batch system's
    command is missing, or the request lacks what every job needs.
    """
    try:
        import dask_jobqueue
    except ImportError as error:
        raise RequestError(f"--cluster {system} needs dask-jobqueue: pip install 'distill[cluster]'") from error
    if cluster.memory is None:
        raise RequestError(f"--cluster {system} needs --memory: that of a worker's job, such as 16GB")
    kind = getattr(dask_jobqueue, BATCH_SYSTEMS[system])
    submit = kind.job_cls.submit_command.split()[0]
    if shutil.which(submit) is None:
        raise RequestError(
            f"--cluster {system}: there is no {submit} here; begin on a node from which jobs can be sent"
        )
    cores, gpus, directives = cluster.cpus_per_worker or 1, cluster.gpus_per_worker, list(cluster.directives)
    settings = {
        "queue": cluster.partition,
        "account" if system in ("slurm", "pbs") else "project": cluster.account,
        "walltime": cluster.walltime if walltime_s is None else walltime_of(system, cluster.walltime, walltime_s),
        "interface": cluster.interface,
    }
    if gpus is not None and system == "pbs":
        settings["resource_spec"] = f"select=1:ncpus={cores}:mem={_mebibytes(cluster.memory)}mb:ngpus={gpus}"
    elif gpus is not None:
        directives.append(GPU_DIRECTIVES[system].format(gpus))
    return kind(
        cores=cores,
        memory=cluster.memory,
        processes=1,
        job_name="distill-label",
        job_extra_directives=directives,
        job_script_prologue=list(cluster.setup),
        worker_extra_args=["--nthreads", "1"],
        local_directory="${TMPDIR:-/tmp}",  # Dask's own files stay off the shared disk
        log_directory=str(work_path(store) / "dask"),
        **{name: value for name, value in settings.items() if value is not None},
    )


def walltime_of(system: str, given: str | None, seconds: float) -> str | None:
    """As the batch system writes it: Slurm's is the notation of --walltime; LSF has hours and minutes, and takes
    4:00:00 for an error; PBS and SGE have no days."""
    if system == "slurm":
        return given
    minutes = math.ceil(seconds / 60)
    return f"{minutes // 60}:{minutes % 60:02d}" + ("" if system == "lsf" else ":00")


def _mebibytes(memory: str) -> int:
    from dask.utils import parse_bytes

    return math.ceil(parse_bytes(memory) / 2**20)
