"""`distill label --devices` and `--cluster`: more workers, the same store; one that dies is named, and made up for."""

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from data.store.verify import verify_store
from pipeline.worker_log import summaries
from tests.command_line import distill, run_python, start_process
from tests.labelling import COUNT, SHARDS, arguments, claimed, contents, make_folder, start_slowly, until
from tests.slurm import Slurm

MANY = pytest.mark.parametrize(
    "how", [("--devices", "2"), ("--cluster", "local:2")], ids=["--devices", "--cluster local"]
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("cluster"))


def at_work(store: Path) -> list[int]:
    """Processes that published a shard and have not left."""
    return [int(log.worker.rpartition("-")[2]) for log in summaries(store) if log.shards and not log.end]


@MANY
def test_a_killed_worker_is_named_and_the_store_is_that_of_one_process(
    folder: Path, tmp_path: Path, how: tuple[str, ...]
):
    store = tmp_path / "store"
    process = start_slowly(folder, 0.6, store, *how, "--json", together=2)
    until(lambda: len(at_work(store)) == 2, "both workers made a shard", process)
    killed = at_work(store)[0]
    os.kill(killed, signal.SIGKILL)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert contents(store) == contents(folder / "store")
    assert verify_store(store) == []
    result = json.loads(out)
    assert (result["pictures"], result["shards"], len(result["rejected"])) == (COUNT, SHARDS, 1)
    assert len(result["workers"]) >= 2
    assert any(worker["worker"].endswith(f"-{killed}") and not worker["end"] for worker in result["workers"])
    assert "the others make its shards" in err
    assert "Traceback" not in err
    if "--devices" in how:
        assert f"(process {killed}) was ended by SIGKILL" in err
    else:
        assert re.search(r"Dask's dashboard: http://\S+", err)


@MANY
def test_a_warning_reaches_every_worker(folder: Path, tmp_path: Path, how: tuple[str, ...]):
    store = tmp_path / "store"
    process = start_slowly(folder, 0.6, store, *how, together=2)
    until(lambda: len(at_work(store)) == 2, "both workers made a shard", process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=240)
    assert process.returncode == 1, err
    assert re.search(r"distill: interrupted; \d of 9 shards are left. The same command goes on", err.splitlines()[-1])
    until(lambda: not claimed(store), "nothing is claimed")


@MANY
def test_what_can_not_be_served_is_refused(folder: Path, tmp_path: Path, how: tuple[str, ...]):
    process = start_process("label", "--store", folder / "store", *arguments(folder), "--features", "conv20", *how)
    _, err = process.communicate(timeout=240)
    assert process.returncode == 2, err
    assert "holds the feature maps of no layer, asked are ['conv20']" in err


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (("--workers", 2), "--workers and the other flags of a cluster need --cluster"),
        (("--cluster", "local:2", "--devices", "2"), "--devices is for this machine alone"),
        (
            ("--cluster", "cloud"),
            "--cluster cloud: give local, local:N, slurm, pbs, lsf, sge, or a scheduler's address",
        ),
        (("--cluster", "local:none"), "give a number of workers after local:"),
        (("--cluster", "slurm"), "--cluster slurm needs --memory"),
        (("--devices", "0"), "--devices 0"),
        (("--devices", "cpu,tpu:7"), "tpu:7"),
    ],
)
def test_a_wrong_cluster_is_refused(folder: Path, tmp_path: Path, given: tuple[Any, ...], expected: str):
    outcome = distill("label", "--store", tmp_path / "store", *arguments(folder), *given)
    assert (outcome.status, outcome.stdout) == (2, "")
    assert expected in outcome.error
    assert list(tmp_path.iterdir()) == []


WITHOUT = """
import sys
sys.modules["distributed"] = None
from cli.main import main
sys.argv = ["distill", *sys.argv[1:]]
main()
"""


def test_without_the_extra_the_message_says_what_to_install(folder: Path, tmp_path: Path):
    done = run_python(WITHOUT, "label", "--store", tmp_path / "store", *arguments(folder), "--cluster", "local:2")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == ("distill: --cluster needs Dask's scheduler: pip install 'distill[cluster]'")


def test_workers_on_a_real_slurm(slurm: Slurm, folder: Path, tmp_path: Path):
    store = tmp_path / "store"
    asked = ("--cluster", "slurm", "--workers", "2", "--memory", "2GB", "--walltime", "00:30:00", "--partition", "main")
    process = start_process("label", "--store", store, *arguments(folder), *asked, "--json")
    out, err = process.communicate(timeout=280)
    assert process.returncode == 0, err
    assert contents(store) == contents(folder / "store")
    jobs = {worker["worker"].partition("-job-")[2] for worker in json.loads(out)["workers"]}
    assert all(job.isdigit() for job in jobs)
    slurm.wait(lambda: not slurm.jobs(), "the workers' jobs have ended")
