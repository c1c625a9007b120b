"""A training that was stopped, warned or killed goes on as if nothing had happened: bit for bit, row for row."""

import json
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline import fit as fitting
from pipeline.run_folder import RunFolder
from stages.student.trainer import Trainer
from tests.command_line import Outcome, distill, run_python, start_process, succeed
from tests.pictures import snapshot, stems, write_teacher
from tests.training import LABEL, MACHINE, STUDENT, make_training, train_command
from tests.training import RECIPE as SHARED

OWN = ("--batch-size", 2, "--learning-rate", 2e-3)
RECIPE = (*SHARED, *OWN)
STEPS = 4
"""Batches per epoch: 9 pictures in batches of 2."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_training(tmp_path_factory.mktemp("resume"), *OWN)


def command(folder: Path, run: Path) -> tuple[Any, ...]:
    return train_command(folder, run, OWN)


def require_equal(run: Path, expected: Path) -> None:
    for name in ("final", "best", "last"):
        assert (run / f"{name}.safetensors").read_bytes() == (expected / f"{name}.safetensors").read_bytes(), name
    assert rows_of(run) == rows_of(expected)
    assert scalars_of(run) == scalars_of(expected)
    assert (run / "run.json").read_bytes() == (expected / "run.json").read_bytes()


def rows_of(run: Path) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in RunFolder(run).metrics()]


def scalars_of(run: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows of a run. It reads files by name, in which several of one second and process sort wrongly:
    a resume within a second happens only here."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def began(file: Path) -> tuple[int, int]:
        parts = file.name.split(".")
        return int(parts[3]), int(parts[-1])

    with tempfile.TemporaryDirectory() as ordered:
        for place, file in enumerate(sorted((run / "tensorboard").iterdir(), key=began)):
            shutil.copyfile(file, Path(ordered, f"events.out.tfevents.{place:06d}"))
        events = EventAccumulator(ordered)
        events.Reload()
    return {
        name: [(event.step, event.value) for event in events.Scalars(name)]
        for name in events.Tags()["scalars"]
        if name != "seconds"
    }


def interrupted_after(step: int, number: signal.Signals, folder: Path, run: Path, *more: Any) -> Outcome:
    """The training with a warning during its `step`-th step in this process, counted from 1."""
    steps, real = [], Trainer.step

    def warned(self: Trainer, *arguments: Any, **named: Any) -> Any:
        steps.append(step)
        if len(steps) == step:
            os.kill(os.getpid(), number)
        return real(self, *arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "step", warned)
        outcome = distill(*command(folder, run), *more)
    assert len(steps) == step
    return outcome


def test_the_run_has_all_that_is_compared(folder: Path):
    rows = RunFolder(folder / "run").metrics()
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert all("validation/ap50_voc07" in row and row["distillation/box"] > 0 for row in rows)
    assert [step for step, _ in scalars_of(folder / "run")["total"]] == [1, 2, 3]


@pytest.mark.parametrize(
    ("step", "number", "place"),
    [
        (1, signal.SIGTERM, "batch 1 of epoch 1"),
        (STEPS, signal.SIGINT, "batch 4 of epoch 1"),
        (STEPS + 2, signal.SIGTERM, "batch 2 of epoch 2"),
        (3 * STEPS, signal.SIGTERM, "batch 4 of epoch 3"),
    ],
)
def test_a_warning_saves_and_the_same_command_goes_on_exactly(
    folder: Path, tmp_path: Path, step: int, number: signal.Signals, place: str
):
    run = tmp_path / "run"
    outcome = interrupted_after(step, number, folder, run)
    assert outcome.status == 1
    assert outcome.error == (
        f"distill: interrupted after {place}; the state is saved. The same command with --resume goes on"
    )
    assert not (run / "final.safetensors").exists()
    succeed(*command(folder, run), "--resume")
    require_equal(run, folder / "run")


def test_warned_again_and_again(folder: Path, tmp_path: Path):
    run = tmp_path / "run"
    assert interrupted_after(2, signal.SIGTERM, folder, run).status == 1
    for step in (1, 3, 2):
        assert interrupted_after(step, signal.SIGTERM, folder, run, "--resume").status == 1
    succeed(*command(folder, run), "--resume")
    require_equal(run, folder / "run")


# A process that has imported everything and computed nothing forks one child per moment, which dies at it.
KILLED = """
import os, signal, sys
from pathlib import Path
import torch
import pipeline.train_command
from cli.main import main
from pipeline import fit
from pipeline.run_folder import RunFolder
from stages.student.trainer import Trainer

os.fsync = lambda descriptor: None  # a kill loses nothing that the kernel has
sys.stderr = open(os.devnull, "w")

def die_at(owner, name, count, after):
    calls, real = [], getattr(owner, name)
    def dying(*given, **named):
        calls.append(name)
        if len(calls) == count and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*given, **named)
        if len(calls) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    setattr(owner, name, dying)

moments = {
    "first step": (Trainer, "step", 2, False),
    "mid-epoch": (Trainer, "step", 7, False),
    "before metrics": (RunFolder, "append_metrics", 2, False),
    "before state": (RunFolder, "save_state", 2, False),
    "after state": (RunFolder, "save_state", 2, True),
    "last state": (RunFolder, "save_state", 3, False),
}
folder, *arguments = sys.argv[1:]
for name, moment in moments.items():
    child = os.fork()
    if child == 0:
        die_at(*moment)
        sys.argv = ["distill", *[text.replace("RUN", str(Path(folder, name))) for text in arguments]]
        main()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, (name, status)
print("|".join(moments))
"""


def test_killed_the_run_goes_on_from_the_last_epoch_exactly(folder: Path, tmp_path: Path):
    result = run_python(KILLED, tmp_path, *command(folder, Path("RUN")))
    assert result.returncode == 0, result.stderr
    moments = result.stdout.strip().split("|")
    assert len(moments) == 6
    for moment in moments:
        run = tmp_path / moment
        assert not (run / "last.safetensors.part").exists()
        succeed(*command(folder, run), "--resume")
        require_equal(run, folder / "run")


def test_a_torn_line_of_metrics_is_forgotten(folder: Path, tmp_path: Path):
    run = tmp_path / "run"
    interrupted_after(STEPS + 1, signal.SIGTERM, folder, run)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 2, "tot')
    succeed(*command(folder, run), "--resume")
    assert rows_of(run) == rows_of(folder / "run")


def test_a_process_that_is_warned_saves_and_says_so(folder: Path, tmp_path: Path):
    run = tmp_path / "run"
    process = start_process(*command(folder, run), "--epochs", 2000)
    while not (run / "last.safetensors").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    out, said = process.communicate(timeout=120)
    assert (process.returncode, out) == (1, "")
    assert said.splitlines()[-1].startswith("distill: interrupted after batch")
    assert "Traceback" not in said


def test_a_finished_run_is_left_as_it_is(folder: Path, tmp_path: Path):
    run = shutil.copytree(folder / "run", tmp_path / "run")
    before = {name: content for name, content in snapshot(run).items() if "tensorboard" not in name}
    result = json.loads(succeed(*command(folder, run), "--resume", "--json").stdout)
    assert result["epochs"] == 3
    assert {name: content for name, content in snapshot(run).items() if "tensorboard" not in name} == before
    assert scalars_of(run) == scalars_of(folder / "run")


def test_what_decides_what_is_learnt_must_be_the_same(folder: Path, tmp_path: Path):
    run = tmp_path / "run"
    interrupted_after(2, signal.SIGTERM, folder, run)
    before = snapshot(run)
    for flags, name in ((("--seed", 1), "seed"), (("--batch-size", 4), "batch_size"), (("--width", 0.1), "width")):
        outcome = distill(*command(folder, run), "--resume", *flags)
        assert outcome.status == 2
        assert f"{name} " in outcome.error
        assert snapshot(run) == before


def test_where_things_lie_may_change(folder: Path, tmp_path: Path):
    run, moved = tmp_path / "run", tmp_path / "moved"
    interrupted_after(STEPS + 2, signal.SIGTERM, folder, run)
    shutil.copytree(folder / "pictures", moved / "blood")
    shutil.copytree(folder / "store", moved / "labels")
    shutil.copytree(folder / "annotations", moved / "truth")
    data = ("--store", moved / "labels", "--annotations", moved / "truth", "--images", moved / "blood")
    lists = ("--val-list", folder / "val.txt")
    succeed("train", "--run", run, *STUDENT, *RECIPE, *MACHINE, "--workers", 1, *data, *lists, "--resume")
    for name in ("final", "best", "last"):
        file = f"{name}.safetensors"
        assert (run / file).read_bytes() == (folder / "run" / file).read_bytes()


@pytest.mark.parametrize("change", ["picture gone", "annotation gone", "other store"])
def test_other_data_are_refused(folder: Path, tmp_path: Path, change: str):
    copy = shutil.copytree(folder, tmp_path / "copy", ignore=shutil.ignore_patterns("run"))
    (copy / "store.work/roots.json").write_text(json.dumps({"pictures": str(copy / "pictures")}))
    run = tmp_path / "run"
    assert interrupted_after(2, signal.SIGTERM, copy, run).status == 1
    if change == "picture gone":
        (copy / "pictures" / f"{stems(1)[0]}.jpg").unlink()
    elif change == "annotation gone":
        (copy / "annotations" / f"{stems(1)[0]}.xml").unlink()
    else:
        shutil.rmtree(copy / "store")
        teacher = write_teacher(copy / "teacher.safetensors", seed=5)
        succeed("label", copy / "pictures", "--teacher", teacher, "--store", copy / "store", *LABEL)
    before = snapshot(run)
    outcome = distill(*command(copy, run), "--resume")
    assert outcome.status == 2
    assert "other pictures, stores or annotations" in outcome.error
    assert snapshot(run) == before


def test_a_damaged_state_is_refused(folder: Path, tmp_path: Path):
    run = shutil.copytree(folder / "run", tmp_path / "run")
    content = bytearray((run / "last.safetensors").read_bytes())
    content[-1] ^= 1
    (run / "last.safetensors").write_bytes(content)
    outcome = distill(*command(folder, run), "--resume")
    assert outcome.status == 2
    assert "last.safetensors is damaged" in outcome.error


def test_initial_weights_are_not_needed_to_go_on(folder: Path, tmp_path: Path):
    """They were taken up at the start; the state has what became of them."""
    from tests.pictures import write_darknet

    weights = write_darknet(tmp_path / "darknet", cfg=CUT)
    given = ("--initial-weights", weights, "--initial-cfg", weights.with_suffix(".cfg"))
    succeed(*command(folder, tmp_path / "whole"), *given)
    assert interrupted_after(2, signal.SIGTERM, folder, tmp_path / "run", *given).status == 1
    shutil.rmtree(tmp_path / "darknet")
    succeed(*command(folder, tmp_path / "run"), *given, "--resume")
    require_equal(tmp_path / "run", tmp_path / "whole")


CUT = (
    "[net]\nheight=64\nwidth=64\nchannels=3\n"
    "[convolutional]\nbatch_normalize=1\nfilters=8\nsize=3\nstride=1\npad=1\nactivation=leaky\n"
    "[maxpool]\nsize=2\nstride=2\n"
    "[convolutional]\nfilters=16\nsize=1\nstride=1\npad=1\nactivation=linear\n"
    "[region]\nanchors=0.5,0.5, 1.5,1\nclasses=3\ncoords=4\nnum=2\nsoftmax=1\n"
)


def test_a_distillation_term_that_did_nothing_stops_the_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    real = fitting.Trainer.step

    def nothing(self: Trainer, *given: Any, **named: Any) -> dict[str, float]:
        return {**real(self, *given, **named), "distillation/box": 0.0}

    monkeypatch.setattr(Trainer, "step", nothing)
    outcome = distill(*command(folder, tmp_path / "run"))
    assert outcome.status == 1
    assert "distillation/box was exactly zero over a whole epoch" in outcome.error
    assert RunFolder(tmp_path / "run").metrics() == []
