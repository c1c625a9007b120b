"""A job array that Slurm warns, or whose node or controller dies: the store is that of one quiet process.

Not possible where all nodes are one machine: a claim that outlives its machine. Here the kernel lets the lock of a dead
worker go at once; that a claim of another machine is waited for until it expires is for tests/data/test_claims.py.
"""

from pathlib import Path

import pytest

from data.store.layout import work_path
from data.store.verify import verify_store
from pipeline import submit_command
from pipeline.worker_log import summaries
from tests.command_line import succeed
from tests.labelling import SHARDS, arguments, array_at_work, contents, ledger, make_folder, slowly, until
from tests.slurm import Slurm


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("slurm-faults"))


@pytest.fixture
def store(slurm: Slurm, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """On which the two tasks of an array have begun."""
    words = slowly(folder, 0.8, together=2)
    monkeypatch.setattr(submit_command, "distill_words", lambda: words)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    store = tmp_path / "store"
    succeed("submit", "label", "--store", store, *arguments(folder), "--workers", 2, "--walltime", "30:00")
    slurm.wait(lambda: len(array_at_work(store)) == 2, "both workers made a shard")
    return store


def tasks(slurm: Slurm) -> dict[str, str]:
    """Job to node of what runs."""
    lines = slurm.run("squeue", "--noheader", "--states=RUNNING", "--format=%A|%N").splitlines()
    return dict(line.split("|") for line in lines)


def restarts(slurm: Slurm, job: str) -> int:
    words = slurm.run("scontrol", "show", "job", job).split()
    return next(int(word.partition("=")[2]) for word in words if word.startswith("Restarts="))


def require_quiet(store: Path, folder: Path) -> None:
    logs = "\n".join(file.read_text() for file in (work_path(store) / "slurm").glob("*.log"))
    assert len(ledger(store)) == SHARDS, logs
    assert contents(store) == contents(folder / "store")
    assert verify_store(store) == []


def test_the_other_node_makes_what_a_dead_one_leaves(slurm: Slurm, folder: Path, store: Path):
    nodes = {node: job for job, node in tasks(slurm).items()}
    assert nodes.keys() == {"node1", "node2"}
    with slurm.dead_node("node1"):
        assert len(ledger(store)) < SHARDS
        slurm.wait(lambda: slurm.node("node1").startswith("down"), "Slurm has noticed")
        slurm.wait(lambda: not slurm.jobs(), "the array has ended on the other node")
        assert slurm.node("node1").startswith("down")
        require_quiet(store, folder)
    assert {job: slurm.state(job) for job in nodes.values()} == dict.fromkeys(nodes.values(), "COMPLETED")
    assert (restarts(slurm, nodes["node1"]), restarts(slurm, nodes["node2"])) == (1, 0)
    assert "" in [log.end for log in summaries(store)]  # killed


def test_jobs_go_on_while_slurms_controller_is_dead(slurm: Slurm, folder: Path, store: Path):
    jobs = list(tasks(slurm))
    assert len(jobs) == 2
    with slurm.dead_controller():
        before = len(ledger(store))
        assert before < SHARDS
        until(lambda: len(ledger(store)) > before, "a shard was made without it")
    slurm.wait(lambda: not slurm.jobs(), "the array has ended")
    require_quiet(store, folder)
    assert [(slurm.state(job), restarts(slurm, job)) for job in jobs] == [("COMPLETED", 0)] * 2
    assert all(log.end for log in summaries(store))  # nobody was killed


def test_a_task_that_slurm_warns_lets_its_shard_go_and_puts_itself_back(slurm: Slurm, folder: Path, store: Path):
    warned, other = tasks(slurm)
    slurm.run("scancel", "--signal=USR2", "--batch", warned)  # as Slurm does by itself ahead of the time limit
    slurm.wait(lambda: restarts(slurm, warned) == 1, "it is in the queue again")
    slurm.wait(lambda: not slurm.jobs(), "the array has ended")
    require_quiet(store, folder)
    assert [(slurm.state(job), restarts(slurm, job)) for job in (warned, other)] == [("COMPLETED", 1), ("COMPLETED", 0)]
    ends = [log.end.partition(":")[0] for log in summaries(store)]
    assert ends.count("interrupted") == 1, ends
    assert all(ends)  # nobody was killed
