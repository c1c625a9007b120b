"""Batch scripts for Slurm that outlive preemption and time limits: they put themselves back into the queue."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from pipeline.cluster_request import ClusterRequest

WARNING_S = 120
"""Seconds before the time limit at which Slurm warns the script."""

ATTEMPTS = 3
"""Times that a job which failed without a warning, and before anything was finished, is tried again."""

_SCRIPT = """\
#!/usr/bin/env bash
{directives}

{setup}{before}# Ahead of the time limit, and when it is preempted, Slurm warns this script, which tells the worker.
worker= warned=
warn() {{ warned=1; {forward}; }}
trap warn USR2 TERM

finished() {{ {finished}; }}
before=$(finished)
{command} &
worker=$!
# A signal ends `wait` early; the last one gives the worker's own status.
while kill -0 "$worker" 2>/dev/null; do wait "$worker"; done
wait "$worker"
status=$?

# 0: all is done. 2: the request can't be served, and never will. Else something is left, and is gone on with as long as
# that gets somewhere: Slurm requeues a job whose node dies, but none that fails or reaches its time limit.
if ((status != 0 && status != 2)); then
  if [[ $warned || $(finished) != "$before" ]] || ((${{SLURM_RESTART_COUNT:-0}} < {attempts})); then
    scontrol requeue "$job" && sleep 60
  fi
fi
exit "$status"
"""

_ARRAY_JOB = "job=${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}\n"
_JOB = "job=$SLURM_JOB_ID\n"


def label_script(cluster: ClusterRequest, command: Sequence[str], store: Path, logs: Path) -> str:
    """A job array, each of whose tasks is one worker on the store. command: `distill label …`, as words."""
    return _SCRIPT.format(
        directives=_directives(
            cluster,
            f"--job-name=distill-label --array=0-{(cluster.workers or 1) - 1}",
            "--ntasks=1",
            f"--output={logs}/%A_%a.log",
            gpus="--gpus-per-task",
        ),
        setup=_setup(cluster),
        before=_ARRAY_JOB,
        forward='kill -USR2 "$worker" 2>/dev/null',
        finished=f"ls {shlex.quote(str(store / 'ledger'))} 2>/dev/null | wc -l",
        command=f"srun {shlex.join(command)}",
        attempts=ATTEMPTS,
    )


def train_script(
    cluster: ClusterRequest,
    torchrun: Sequence[str],
    command: Sequence[str],
    run: Path,
    logs: Path,
    *,
    nodes: int,
    devices: int,
) -> str:
    """One job of `nodes` nodes with a torchrun on each, which starts a rank per device. command: `distill train …`."""
    words, meeting = [f"--nproc-per-node={devices}"], ""
    if nodes == 1:
        words += ["--standalone"]
    else:
        words += [f"--nnodes={nodes}", "--rdzv-backend=c10d", '--rdzv-id="$SLURM_JOB_ID"']
        words += ['--rdzv-endpoint="$head:$port"']
        meeting = 'head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)\n'
        meeting += "port=$((20000 + SLURM_JOB_ID % 30000))\n"
    words += ["--"]  # or torchrun takes --run for one of its own flags, shortened
    state = shlex.quote(str(run / "run.json"))
    return _SCRIPT.format(
        directives=_directives(
            cluster,
            f"--job-name=distill-train --nodes={nodes}",
            "--ntasks-per-node=1",
            f"--output={logs}/%j.log",
            gpus="--gpus-per-node",
        ),
        setup=_setup(cluster),
        before=_JOB + meeting + f"[[ -e {state} ]] && resume=--resume || resume=\n",
        # not USR2, of which torchrun would die
        forward='scancel --signal=TERM "$SLURM_JOB_ID.0" 2>/dev/null',
        finished=f"cksum {shlex.quote(str(run / 'last.safetensors'))} 2>/dev/null",
        command=f"srun {shlex.join(torchrun)} --no-python {' '.join(words)} {shlex.join(command)} $resume",
        attempts=ATTEMPTS,
    )


def _directives(cluster: ClusterRequest, *own: str, gpus: str) -> str:
    asked = {
        "--partition": cluster.partition,
        "--account": cluster.account,
        "--time": cluster.walltime,
        "--mem": cluster.memory,
        "--cpus-per-task": cluster.cpus_per_worker,
        gpus: cluster.gpus_per_worker,
    }
    lines = [
        *own,
        *(f"{flag}={value}" for flag, value in asked.items() if value is not None),
        f"--requeue --open-mode=append --signal=B:USR2@{WARNING_S}",
        *cluster.directives,
    ]
    return "\n".join(f"#SBATCH {line}" for line in lines)


def _setup(cluster: ClusterRequest) -> str:
    # srun does not pass on what sbatch was asked for (since Slurm 22.05)
    cpus = ["export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK"] if cluster.cpus_per_worker is not None else []
    return "".join(f"{line}\n" for line in (*cluster.setup, *cpus))
