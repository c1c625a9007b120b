"""`distill train` on several devices: one training, whoever starts its ranks, stops them, or kills one."""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from data.checkpoint import load_checkpoint
from pipeline.run_folder import Position, RunFolder
from tests.command_line import ENVIRONMENT, ROOT, distill, start_process, succeed
from tests.ranks import run_forked
from tests.training import make_training, train_command

RECIPE = ("--batch-size", 3, "--learning-rate", 1e-3)
COUNTS = (
    "epoch",
    "step",
    "learning_rate",
    "batches",
    "pictures",
    "labelled",
    "with_teacher",
    "kept_slots",
    "collisions",
)
ENDLESS = ("--epochs", 100_000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_training(tmp_path_factory.mktemp("ranks"), *RECIPE)


def command(folder: Path, run: Path) -> tuple[Any, ...]:
    return train_command(folder, run, RECIPE)


def require_alike(run: Path, expected: Path) -> None:
    """The same pictures were seen, and the figures and weights differ by no more than sums in another order do."""
    rows, others = RunFolder(run).metrics(), RunFolder(expected).metrics()
    assert len(rows) == len(others)
    for row, other in zip(rows, others, strict=True):
        assert row.keys() == other.keys()
        assert {name: row[name] for name in COUNTS} == {name: other[name] for name in COUNTS}
        for name in row.keys() - {*COUNTS, "seconds"}:
            assert math.isclose(row[name], other[name], rel_tol=2e-3, abs_tol=2e-3), (name, row[name], other[name])
    for file in ("last", "final"):
        found, _ = load_checkpoint(run / f"{file}.safetensors")
        wanted, _ = load_checkpoint(expected / f"{file}.safetensors")
        assert found.keys() == wanted.keys()
        for prefix, tolerance in (("momentum.", 0.1), ("", 1e-3)):
            names = [name for name in wanted if name.startswith("momentum.") == bool(prefix)]
            if names:
                one, other = (torch.cat([part[name].double().flatten() for name in names]) for part in (found, wanted))
                assert (one - other).norm() < tolerance * other.norm(), (file, prefix, (one - other).norm())


def ranks_of(process: "subprocess.Popen[str]") -> dict[int, int]:
    """Rank to process id of the processes that `train --devices` has started."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    found = {}
    for child in children:
        environment = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        found.update({int(entry[5:]): int(child) for entry in environment if entry.startswith(b"RANK=")})
    return found


def until(condition: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def gone(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().split()[2] == "Z"
    except FileNotFoundError:
        return True


def test_two_ranks_train_what_one_process_trains(folder: Path, tmp_path: Path):
    process = start_process(*command(folder, tmp_path / "run"), "--devices", 2, "--json")
    out, said = process.communicate(timeout=240)
    assert process.returncode == 0, said
    assert json.loads(out)["pictures"] == 9
    assert said.count("reading soft labels: 3/3 shards") == 1
    assert "Warning" not in said
    require_alike(tmp_path / "run", folder / "run")


# Three ranks, then two, then one: each leaves in the middle of an epoch because one of its processes was warned.
INTERRUPTED = """
from cli.main import main
from stages.student.trainer import Trainer

def rank_warned(warned, step):
    def work(rank):
        real, steps = Trainer.step, []
        def counted(*given, **named):
            steps.append(1)
            if len(steps) == step and rank == warned:
                os.kill(os.getpid(), signal.SIGUSR2)
            return real(*given, **named)
        Trainer.step = counted
        try:
            main()
        finally:
            assert len(steps) == step, (rank, len(steps))
    return work

sys.argv = ["distill", *sys.argv[1:]]
assert on_ranks(3, rank_warned(2, 2)) == [1, 1, 1]
sys.argv.append("--resume")
assert on_ranks(2, rank_warned(1, 3)) == [1, 1]
"""


def test_a_warning_of_one_rank_stops_all_and_other_numbers_of_ranks_go_on(folder: Path, tmp_path: Path):
    run = tmp_path / "run"
    result = run_forked(INTERRUPTED, *command(folder, run))
    assert result.returncode == 0, result.stderr
    said = [line for line in result.stderr.splitlines() if line.startswith("distill: ")]
    assert said == [
        f"distill: interrupted after batch {place}; the state is saved. The same command with --resume goes on"
        for place in ("2 of epoch 1", "2 of epoch 2")
    ]
    succeed(*command(folder, run), "--resume")
    require_alike(run, folder / "run")


def test_a_run_of_one_process_goes_on_with_two(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from stages.student.trainer import Trainer

    run, steps, real = tmp_path / "run", [], Trainer.step

    def warned(*given: Any, **named: Any) -> Any:
        steps.append(1)
        if len(steps) == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", warned)
        assert distill(*command(folder, run)).status == 1
    process = start_process(*command(folder, run), "--resume", "--devices", 2)
    _, said = process.communicate(timeout=240)
    assert process.returncode == 0, said
    require_alike(run, folder / "run")


@pytest.mark.parametrize("killed", [0, 1])
def test_a_rank_that_is_killed_ends_the_others(folder: Path, tmp_path: Path, killed: int):
    run = tmp_path / "run"
    process = start_process(*command(folder, run), *ENDLESS, "--devices", 2)
    until((run / "last.safetensors").exists, process)
    ranks = ranks_of(process)
    os.kill(ranks[killed], signal.SIGKILL)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1
    assert said.splitlines()[-1] == (
        f"distill: rank {killed} of 2 was ended by SIGKILL. The same command with --resume goes on after the last "
        "state that was saved"
    )
    assert "Traceback" not in said
    assert all(gone(number) for number in ranks.values())


# Rank 1 of three fails by itself: once with a fault of the program, once with something that it can say in a sentence.
FAILING = """
from cli.main import main
from data.errors import WorkLeftError
import stages.student.trainer

def failing(error):
    def work(rank):
        def broken(*given, **named):
            raise error
        if rank == 1:
            stages.student.trainer.objective = broken
        main()
    return work

sys.argv = ["distill", *sys.argv[1:]]
print(on_ranks(3, failing({error})))
"""


def said_of(folder: Path, run: Path, error: str) -> tuple[str, str]:
    result = run_forked(FAILING.replace("{error}", error), *command(folder, run))
    assert result.returncode == 0, result.stderr
    return result.stdout, result.stderr


def test_a_fault_of_one_rank_is_shown_by_it_and_the_others_say_once_that_it_is_lost(folder: Path, tmp_path: Path):
    out, said = said_of(folder, tmp_path / "run", 'RuntimeError("CUDA error: an illegal memory access")')
    assert out.splitlines()[-1] == "[1, 70, 1]"  # 70: what the test's ranks leave with for a traceback
    assert said.count("Traceback") == 1
    assert "RuntimeError: CUDA error: an illegal memory access\non rank 1 of 3\n" in said
    messages = [line for line in said.splitlines() if line.startswith("distill: ")]
    assert len(messages) == 1
    assert messages[0].startswith("distill: rank 0 no longer reaches the others")


def test_what_one_rank_alone_has_to_say_is_said_by_it(folder: Path, tmp_path: Path):
    out, said = said_of(folder, tmp_path / "run", 'WorkLeftError("no room")')
    assert out.splitlines()[-1] == "[1, 1, 1]"
    assert "Traceback" not in said
    own, lost = sorted((line for line in said.splitlines() if line.startswith("distill: ")), reverse=True)
    assert own == "distill: rank 1: no room"
    assert lost.startswith("distill: rank 0 no longer reaches the others")


# A machine with an older copy of the run folder, or with one that lacks the state: a folder of its own for rank 1.
OTHER_COPY = """
from cli.main import main
copy = sys.argv.pop()
run = sys.argv.index("--run") + 1

def work(rank):
    if rank == 1:
        sys.argv[run] = copy
    main()

sys.argv[0] = "distill"
assert on_ranks(2, work) == [1, 1]
"""


@pytest.mark.parametrize(
    ("epochs", "scale", "seen"),
    [(1, 1.0, "1 epochs and 0 batches"), (2, 1.5, "2 epochs and 0 batches"), (None, 1.0, "none")],
)
def test_ranks_that_see_different_states_do_not_train(
    folder: Path, tmp_path: Path, epochs: int | None, scale: float, seen: str
):
    run, copy = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "copy")
    shutil.copytree(folder / "run", run.path)
    shutil.copytree(folder / "run", copy.path)
    tensors, _ = load_checkpoint(run.last)
    run.save_state(tensors, Position(2, 0, None), {})
    copy.last.unlink()
    if epochs is not None:
        scaled = {name: (tensor * scale).to(tensor.dtype) for name, tensor in tensors.items()}
        copy.save_state(scaled, Position(epochs, 0, None), {})
    before = run.last.read_bytes()
    result = run_forked(OTHER_COPY, *command(folder, run.path), "--resume", copy.path)
    assert result.returncode == 0, result.stderr
    said = [line for line in result.stderr.splitlines() if line.startswith("distill: ")]
    assert len(said) == 1
    start, here, there, end = re.split(r"rank 0: |; rank 1: |\)\. ", said[0])
    assert start == f"distill: the ranks see different states in {run.last} ("
    assert here.startswith("2 epochs and 0 batches, checksum ")
    assert there.startswith(seen)
    assert here != there
    assert end == (
        "The run folder must be on a file system that all ranks share and see alike; once it is, the same command with "
        "--resume goes on"
    )
    assert "Traceback" not in result.stderr
    assert run.last.read_bytes() == before


def test_ctrl_c_stops_all_ranks_and_saves_once(folder: Path, tmp_path: Path):
    """A terminal interrupts every process of the command, and the one that started the others passes it on."""
    run = tmp_path / "run"
    process = start_process(*command(folder, run), *ENDLESS, "--devices", 2, start_new_session=True)
    until((run / "last.safetensors").exists, process)
    os.killpg(process.pid, signal.SIGINT)
    out, said = process.communicate(timeout=120)
    assert (process.returncode, out) == (1, "")
    assert said.count("distill: ") == 1
    assert said.splitlines()[-1].startswith("distill: interrupted after batch")
    assert "Traceback" not in said


def test_ranks_do_not_outlive_what_started_them(folder: Path, tmp_path: Path):
    run = tmp_path / "run"
    process = start_process(*command(folder, run), *ENDLESS, "--devices", 2)
    until((run / "last.safetensors").exists, process)
    ranks = ranks_of(process)
    process.kill()
    _, said = process.communicate(timeout=120)  # until nobody holds the other end any more
    assert said.splitlines()[-1].startswith("distill: interrupted after batch")
    assert len(ranks) == 2


def test_what_cannot_be_served_is_said_once(folder: Path, tmp_path: Path):
    run = tmp_path / "run"
    for flags, status, text in (
        (("--batch-size", 2, "--labelled-share", 0.5, "--devices", 3), 2, "3 ranks can't share batches of 2 pictures"),
        (("--store", tmp_path / "none", "--devices", 2), 2, f"{tmp_path / 'none'} is not a label store"),
    ):
        process = start_process(*command(folder, run), *flags)
        out, said = process.communicate(timeout=240)
        assert (process.returncode, out) == (status, "")
        assert said.count("distill: ") == 1
        assert text in said.splitlines()[-1]
        assert "Traceback" not in said
        assert not run.exists()


def test_torchrun_starts_ranks_too(folder: Path, tmp_path: Path):
    run = tmp_path / "run"
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python", "--")
    started = (sys.executable, *torchrun, sys.executable, "-c", "from cli.main import main; main()")
    result = subprocess.run(
        [*started, *map(str, command(folder, run)), "--devices", "2", "--epochs", "1"],
        cwd=ROOT,
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("f-yolo, 1 epochs on 9 pictures") == 1
    row, expected = RunFolder(run).metrics()[0], RunFolder(folder / "run").metrics()[0]
    assert {name: row[name] for name in COUNTS[3:]} == {name: expected[name] for name in COUNTS[3:]}


@pytest.mark.parametrize(
    ("environment", "flags", "text"),
    [
        ({"WORLD_SIZE": "2"}, ("--devices", 3), "2 ranks were started by torchrun: leave out --devices"),
        ({"WORLD_SIZE": "2"}, (), "RANK, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT is not set"),
    ],
)
def test_an_environment_that_makes_no_sense_is_refused(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    flags: tuple[Any, ...],
    text: str,
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    outcome = distill(*command(folder, tmp_path / "run"), *flags)
    assert outcome.status == 2
    assert text in outcome.error
