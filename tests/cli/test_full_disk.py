"""A disk that is really full: status 1, how much was needed, nothing half-written; with room, the same command ends."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from data.store.files import files_below
from data.store.layout import work_path
from data.store.reader import LabelStore
from data.store.verify import verify_store
from tests.command_line import distill, succeed
from tests.pictures import copy_pictures, write_list, write_teacher

LABEL = ("--device", "cpu", "--precision", "float32", "--batch-size", 2, "--shard-size", 2, "--threads", 1)
FEATURES = ("--features", "conv1")
"""150 kB per picture: two shards fit, the third does not."""


def mount(*arguments: Any) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True, check=False)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = mount("-t", "tmpfs", "-o", "size=800k", "tmpfs", disk)
    if mounted.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_label(disk: Path, tmp_path: Path):
    copy_pictures(tmp_path / "pictures", 8)
    teacher = write_teacher(tmp_path / "teacher.safetensors")
    given = ("label", tmp_path / "pictures", "--teacher", teacher, *LABEL, *FEATURES)
    store = disk / "store"
    outcome = distill(*given, "--store", store)
    assert outcome.status == 1
    said = re.search(r"disk is full: shard (\d) of .* needs up to (\d+) bytes, (\d+) are free", outcome.error)
    assert said is not None
    shard, needed, free = map(int, said.groups())
    assert shard > 0
    assert needed > free
    assert "run the same command again" in outcome.error
    assert LabelStore.open(store).finished_shards() == list(range(shard))
    assert all(damage.unfinished for damage in verify_store(store))
    assert not list((work_path(store) / "staging").iterdir())
    finished = {file: (store / file).stat().st_ino for file in LabelStore.open(store).record(0).files}

    assert mount("-o", "remount,size=8m", disk).returncode == 0
    succeed(*given, "--store", store)
    succeed(*given, "--store", tmp_path / "undisturbed")
    assert contents(store) == contents(tmp_path / "undisturbed")
    assert {file: (store / file).stat().st_ino for file in finished} == finished


def contents(store: Path) -> dict[str, bytes]:
    return {file: (store / file).read_bytes() for file in files_below(store)}


def test_label_where_not_even_the_empty_store_fits(disk: Path, tmp_path: Path):
    copy_pictures(tmp_path / "pictures", 2)
    teacher = write_teacher(tmp_path / "teacher.safetensors")
    fill(disk, leaving=3)
    outcome = distill("label", tmp_path / "pictures", "--teacher", teacher, *LABEL, "--store", disk / "store")
    assert outcome.status == 1
    assert "No space left on device" in outcome.error
    assert not (disk / "store").exists()


def test_train(disk: Path, tmp_path: Path):
    pictures = copy_pictures(tmp_path / "pictures", 4)
    teacher = write_teacher(tmp_path / "teacher.safetensors")
    succeed("label", tmp_path / "pictures", "--teacher", teacher, *LABEL, "--store", tmp_path / "store")
    write_list(tmp_path / "val.txt", [pictures[3].stem])
    fill(disk, leaving=20)
    student = ("--model", "tiny-yolo", "--width", 0.05, "--epochs", 2, "--batch-size", 3, "--device", "cpu")
    given = (
        "train",
        "--run",
        disk / "run",
        "--store",
        tmp_path / "store",
        "--val-list",
        tmp_path / "val.txt",
        *student,
    )
    outcome = distill(*given)
    assert outcome.status == 1
    assert "No space left on device" in outcome.error
    assert "--resume" in outcome.error
    assert not [file for file in files_below(disk / "run") if file.endswith((".tmp", ".part"))]
    (disk / "ballast").unlink()
    assert mount("-o", "remount,size=8m", disk).returncode == 0
    succeed(*given, "--resume")


def fill(disk: Path, leaving: int) -> None:
    """Leave so many pages of 4096 bytes free."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    with ballast.open("r+b") as file:
        file.truncate(ballast.stat().st_size - leaving * 4096)
