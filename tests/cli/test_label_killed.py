"""`distill label` killed, warned, or failed by a file: the same command completes the very same store."""

import json
import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from data.store.files import files_below
from data.store.layout import work_path
from data.store.reader import LabelStore
from data.store.verify import verify_store
from pipeline import label as label_stage
from stages.label.teacher import Teacher
from tests.command_line import distill, run_python, start_process, succeed
from tests.pictures import copy_pictures, damage, write_teacher

SETTINGS = ("--device", "cpu", "--precision", "float32", "--batch-size", 2, "--shard-size", 3, "--threads", 1)
COUNT = 7

# A process that has imported everything and computed nothing forks one child per step, which dies at it.
KILLED_AT_EVERY_STEP = """
import functools, os, signal, sys
from pathlib import Path
from PIL import Image
import pipeline.label, pipeline.label_command
from cli.main import main
from data.store.publish import publish_shard
from pipeline.model_source import load_detector_source

os.fsync = lambda descriptor: None  # a kill loses nothing that the kernel has
sys.stderr = open(os.devnull, "w")
folder, *arguments = sys.argv[1:]
Image.init()
load_detector_source(Path(arguments[2]))  # what it imports on the way need not be imported in every child
step = 0
while True:
    child = os.fork()
    if child == 0:
        seen = []
        def die(what):
            seen.append(what)
            if len(seen) == step + 1:
                os.kill(os.getpid(), signal.SIGKILL)
        def publish(store, shard, rows):
            return publish_shard(store, shard, rows, on_step=die if shard == 1 else lambda what: None)
        pipeline.label.publish_shard = publish
        sys.argv = ["distill", "label", "--store", str(Path(folder, str(step))), *arguments]
        main()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status):
        assert os.WEXITSTATUS(status) == 0, status
        break
    assert os.WTERMSIG(status) == signal.SIGKILL, status
    step += 1
print(step)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """pictures/ (one of them damaged), teacher.safetensors, and the undisturbed store/ with a feature map."""
    folder = tmp_path_factory.mktemp("killed")
    damage(copy_pictures(folder / "pictures", COUNT)[4])
    write_teacher(folder / "teacher.safetensors")
    succeed("label", "--store", folder / "store", *arguments(folder))
    return folder


def arguments(folder: Path) -> tuple[Any, ...]:
    return (folder / "pictures", "--teacher", folder / "teacher.safetensors", "--features", "conv20", *SETTINGS)


def contents(store: Path) -> dict[str, bytes]:
    return {file: (store / file).read_bytes() for file in files_below(store)}


def inodes(store: Path) -> dict[str, int]:
    """Of the files of finished shards, and of the metadata."""
    opened = LabelStore.open(store)
    files = [file for shard in opened.finished_shards() for file in opened.record(shard).files]
    return {file: (store / file).stat().st_ino for file in [*files, "zarr.json", "manifest.jsonl"]}


def complete(store: Path, given: tuple[Any, ...], undisturbed: Path) -> None:
    """The same command again gives the undisturbed store, and leaves alone what was finished."""
    before = inodes(store)
    succeed("label", "--store", store, *given)
    assert contents(store) == contents(undisturbed)
    assert {file: (store / file).stat().st_ino for file in before} == before
    assert not list((work_path(store) / "staging").iterdir())
    assert verify_store(store) == []


def test_killed_at_every_step_of_the_protocol_the_same_command_completes_the_store(folder: Path, tmp_path: Path):
    few = (folder / "pictures", "--teacher", folder / "teacher.safetensors", *SETTINGS, "--limit", 5)
    succeed("label", "--store", tmp_path / "undisturbed", *few)
    result = run_python(KILLED_AT_EVERY_STEP, tmp_path, *few)
    assert result.returncode == 0, result.stderr
    arrays, steps = 5, int(result.stdout.splitlines()[-1])
    assert steps == 2 * arrays + 5  # every array twice; folder, record, two syncs, publishing
    finished = []
    for step in range(steps):
        store = tmp_path / str(step)
        finished.append(LabelStore.open(store).finished_shards())
        complete(store, few, tmp_path / "undisturbed")
    # shard 0 is whole in all of them, shard 1 only once its record is there
    assert finished == [[0]] * (2 * arrays + 3) + [[0, 1]] * 2


def test_killed_at_random_moments_the_same_command_completes_the_store(folder: Path, tmp_path: Path):
    draw = random.Random(20)
    store = tmp_path / "store"
    killed, kept = 0, {}
    for delay in (0, draw.uniform(0, 0.3), draw.uniform(0, 0.3)):
        process = start_process("label", "--store", store, *arguments(folder))
        began = time.monotonic()
        while not store.exists() and process.poll() is None and time.monotonic() - began < 120:
            time.sleep(0.005)
        time.sleep(delay)
        process.kill()
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
        assert {file: (store / file).stat().st_ino for file in kept} == kept
        kept = inodes(store)
    assert killed > 0
    complete(store, arguments(folder), folder / "store")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_warning_stops_at_a_safe_point_and_the_same_command_goes_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
):
    store, batches, real = tmp_path / "store", [], Teacher.label

    def warned(self: Teacher, inputs: Any) -> Any:
        batches.append(len(inputs))
        if len(batches) == 3:  # the first of shard 1
            os.kill(os.getpid(), number)
        return real(self, inputs)

    with monkeypatch.context() as patch:
        patch.setattr(Teacher, "label", warned)
        outcome = distill("label", "--store", store, *arguments(folder))
    assert outcome.status == 1
    assert outcome.error == "distill: interrupted: 2 of 3 shards are left. The same command goes on with them"
    assert len(batches) == 3
    assert LabelStore.open(store).finished_shards() == [0]
    complete(store, arguments(folder), folder / "store")


def test_a_warning_after_the_last_batch_is_no_failure(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    real = label_stage.publish_shard

    def warned(store: LabelStore, shard: int, *rest: Any, **named: Any) -> bool:
        if shard == 2:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.05)
        return real(store, shard, *rest, **named)

    monkeypatch.setattr(label_stage, "publish_shard", warned)
    succeed("label", "--store", tmp_path / "store", *arguments(folder))
    assert contents(tmp_path / "store") == contents(folder / "store")


def catches(process: int, number: signal.Signals) -> bool:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    caught = next(int(line.split()[1], 16) for line in lines if line.startswith("SigCgt:"))
    return bool(caught >> (number - 1) & 1)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="/proc says when a process is ready for a signal")
def test_a_process_that_is_warned_before_it_labels_says_so(folder: Path, tmp_path: Path):
    process = start_process("label", "--store", tmp_path / "store", *arguments(folder))
    while not catches(process.pid, signal.SIGTERM):
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1, said
    assert said.splitlines()[-1].startswith("distill: interrupted")
    assert "Traceback" not in said


def test_a_file_that_cannot_be_read_leaves_its_shard_alone_and_says_which(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    store, name = tmp_path / "store", sorted((folder / "pictures").iterdir())[5].name
    real, refused = Path.read_bytes, []

    def unreadable(path: Path) -> bytes:
        if path.name == name and store.exists():  # hashed before, when it could still be read
            refused.append(path)
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", unreadable)
        outcome = distill("label", "--store", store, *arguments(folder))
    assert (outcome.status, len(refused)) == (1, 1)
    assert f"{name} can't be read (Permission denied)" in outcome.error
    assert "1 of 3 shards are left" in outcome.error.lower()
    assert "the same command" in outcome.error
    assert LabelStore.open(store).finished_shards() == [0, 2]
    assert verify_store(store)[0].unfinished
    complete(store, arguments(folder), folder / "store")


def test_a_picture_that_changed_under_an_unfinished_store_is_not_labelled(folder: Path, tmp_path: Path):
    shutil.copytree(folder / "pictures", tmp_path / "pictures")
    store = tmp_path / "store"
    given = (tmp_path / "pictures", *arguments(folder)[1:])
    succeed("label", "--store", store, *given)
    (store / "ledger/00000001.json").unlink()
    picture = sorted((tmp_path / "pictures").iterdir())[3]
    content = picture.read_bytes()
    picture.write_bytes(bytes([*content[:-3], content[-3] ^ 1, *content[-2:]]))
    outcome = distill("label", "--store", store, *given)
    assert outcome.status == 1
    assert f"{picture} has changed since {store} was begun" in outcome.error
    assert LabelStore.open(store).finished_shards() == [0, 2]
    picture.write_bytes(content)
    result = json.loads(succeed("label", "--store", store, *given, "--json").stdout)
    assert (result["shards_now"], result["labelled_now"]) == (1, 2)
    assert contents(store) == contents(folder / "store")
