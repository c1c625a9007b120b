"""The scripts by which Dask's workers are sent to each batch system: only Slurm is at hand to be run."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from data.errors import RequestError
from pipeline.batch_cluster import BATCH_SYSTEMS, batch_cluster
from pipeline.cluster_request import ClusterRequest

ASKED = ClusterRequest(
    partition="long",
    account="lab",
    walltime="1-02:30:00",
    memory="16GB",
    cpus_per_worker=4,
    gpus_per_worker=2,
    directives=("-m be",),
    setup=("module load cuda",),
    interface="lo",
)
SECONDS = 26.5 * 3600

EXPECTED = {
    "slurm": [
        "-J distill-label",
        "-p long",
        "-A lab",
        "-n 1",
        "--cpus-per-task=4",
        "--mem=15G",
        "-t 1-02:30:00",
        "-m be",
        "--gres=gpu:2",
    ],
    "pbs": [
        "-N distill-label",
        "-q long",
        "-A lab",
        "-l select=1:ncpus=4:mem=15259mb:ngpus=2",
        "-l walltime=26:30:00",
        "-m be",
    ],
    "lsf": [
        "-J distill-label",
        "-q long",
        '-P "lab"',
        "-n 4",
        '-R "span[hosts=1]"',
        "-M 16000000",
        "-W 26:30",
        "-m be",
        '-gpu "num=2"',
    ],
    "sge": ["-N distill-label", "-q long", "-P lab", "-l h_rt=26:30:00", "-cwd", "-j y", "-m be", "-l gpu=2"],
}
PREFIXES = {"slurm": "#SBATCH ", "pbs": "#PBS ", "lsf": "#BSUB ", "sge": "#$ "}


@pytest.fixture(autouse=True)
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """sbatch, qsub and bsub, which nobody calls."""
    for name in ("sbatch", "qsub", "bsub"):
        (tmp_path / name).touch(mode=0o755)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path), prepend=":")
        patch.setenv("LSF_ENVDIR", str(tmp_path))  # where dask-jobqueue looks for LSF's units
        yield


@pytest.mark.parametrize("system", BATCH_SYSTEMS)
def test_a_job_asks_for_what_the_flags_say(system: str, tmp_path: Path):
    with closing(batch_cluster(tmp_path / "store", system, ASKED, SECONDS)) as jobs:
        lines = jobs.job_script().splitlines()
        scheduler = jobs.scheduler_address
    prefix = PREFIXES[system]
    asked = [line.removeprefix(prefix) for line in lines if line.startswith(prefix)]
    logs = [line for line in asked if line.startswith(("-e ", "-o "))]
    assert [line for line in asked if line not in logs] == EXPECTED[system]
    assert len(logs) == 2
    assert all(line[3:].startswith(str(tmp_path / "store.work/dask")) for line in logs)
    *_, setup, worker = lines
    assert setup == "module load cuda"
    assert f"distributed.cli.dask_worker {scheduler} " in worker
    assert "--interface lo" in worker
    assert worker.rindex("--nthreads 1") > worker.index("--nthreads 4")  # the last one counts
    assert "--local-directory ${TMPDIR:-/tmp}" in worker


@pytest.mark.parametrize("system", BATCH_SYSTEMS)
def test_nothing_is_asked_for_that_no_flag_says(system: str, tmp_path: Path):
    with closing(batch_cluster(tmp_path / "store", system, ClusterRequest(memory="2GB"), None)) as jobs:
        script = jobs.job_script()
    assert "distill-label" in script
    assert not [word for word in ("gpu", "gres", "long", "lab\n", "module") if word in script]


@pytest.mark.parametrize("system", BATCH_SYSTEMS)
def test_without_the_batch_system_it_is_refused(system: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(RequestError, match=f"--cluster {system}: there is no (sbatch|qsub|bsub) here"):
        batch_cluster(tmp_path / "store", system, ASKED, SECONDS)
