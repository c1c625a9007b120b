"""`distill submit`: a command as a batch job of Slurm, by a script that is written beside its results."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data.errors import RequestError, WorkLeftError
from data.store.address import store_address
from data.store.layout import work_path
from pipeline.cluster_request import ClusterRequest
from pipeline.slurm_script import WARNING_S, label_script, train_script

START_S = 60
"""Seconds that a worker may need from the job's start to its own clock's."""


def submit_label(
    cluster: ClusterRequest, arguments: Sequence[str], store: str, *, walltime_s: float | None, dry_run: bool
) -> dict[str, Any]:
    """A job array of workers on one store. arguments: of `distill label`. walltime_s: of a task, None if not limited.

    Raises RequestError without sbatch or for a store in a bucket, WorkLeftError where it refuses the script.
    """
    folder = store_address(store)
    if not isinstance(folder, Path):
        raise RequestError(
            f"distill submit keeps script and logs beside the store, and {store} is no folder: start workers by a "
            "batch script of your own, of distill label --worker"
        )
    logs = work_path(folder) / "slurm"
    words = [*distill_words(), "label", *arguments, "--worker"]
    if walltime_s is not None and "--time-limit" not in arguments:
        left = walltime_s - WARNING_S - START_S
        if left <= 0:
            raise RequestError(f"--walltime {cluster.walltime}: {WARNING_S + START_S} seconds go to start and warning")
        words += ["--time-limit", f"{left:.0f}s"]
    return _submit(label_script(cluster, words, folder, logs), logs / "label.sbatch", dry_run)


def submit_train(
    cluster: ClusterRequest, arguments: Sequence[str], run: Path, *, nodes: int, devices: int, dry_run: bool
) -> dict[str, Any]:
    """A job that trains on nodes × devices ranks and resumes itself; raises as `submit_label` does."""
    logs = run.resolve().with_name(f"{run.resolve().name}.work") / "slurm"
    words = [*distill_words(), "train", *(word for word in arguments if word != "--resume")]
    torchrun = _program("torchrun", "torch.distributed.run")
    script = train_script(cluster, torchrun, words, run, logs, nodes=nodes, devices=devices)
    return _submit(script, logs / "train.sbatch", dry_run)


def distill_words() -> list[str]:
    """How to start this very program on another node of one file system."""
    return _program("distill", "cli")


def _program(name: str, module: str) -> list[str]:
    beside = Path(sys.executable).with_name(name)
    return [str(beside)] if beside.exists() else [sys.executable, "-m", module]


def _submit(script: str, file: Path, dry_run: bool) -> dict[str, Any]:
    if dry_run:
        return {"script": script, "text": script.rstrip("\n")}
    if shutil.which("sbatch") is None:
        raise RequestError("there is no sbatch here: submit on a node of a Slurm cluster, or look by --dry-run")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(script)
    done = subprocess.run(["sbatch", "--parsable", str(file)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise WorkLeftError(f"sbatch refused {file}: {done.stderr.strip()}")
    job = done.stdout.strip().partition(";")[0]
    return {"job": job, "script": str(file), "text": f"job {job} by {file}; its logs lie beside it"}
