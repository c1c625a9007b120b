"""One student of several stores: of one teacher in parts, and of teachers that differ in all but their classes."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data.checkpoint import load_checkpoint
from data.store.reader import LabelStore
from pipeline.run_folder import RunFolder
from stages.student.samples import Sample, TrainingPicture
from tests.command_line import distill, succeed
from tests.pictures import CLASSES, SIDE, copy_annotations, copy_pictures, stems, write_teacher

LABEL = ("--device", "cpu", "--precision", "float32", "--batch-size", 1, "--shard-size", 4, "--threads", 1)
STUDENT = ("--model", "tiny-yolo", "--width", 0.05, "--epochs", 2, "--batch-size", 2, "--val-fraction", 0)
MACHINE = ("--device", "cpu", "--precision", "float32", "--workers", 1)
COUNT = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """pictures/ in parts one/ and two/, the stores whole, one and two of the first teacher, and `other` of a second
    one that has its classes in another order, another input size and other weights."""
    folder = tmp_path_factory.mktemp("teachers")
    pictures = copy_pictures(folder / "pictures", COUNT)
    for number, picture in enumerate(pictures):
        part = folder / "pictures" / ("one" if number % 2 else "two")
        part.mkdir(exist_ok=True)
        picture.rename(part / picture.name)
    copy_annotations(folder / "annotations", stems(COUNT)[:4])
    first = write_teacher(folder / "first.safetensors")
    second = write_teacher(folder / "second.safetensors", classes=CLASSES[::-1], side=SIDE + 32, seed=3)
    for store, teacher, images in (
        ("whole", first, ["one", "two"]),
        ("one", first, ["one"]),
        ("two", first, ["two"]),
        ("other", second, ["one", "two"]),
    ):
        named = [folder / "pictures" / name for name in images]
        succeed("label", *named, "--teacher", teacher, "--store", folder / store, *LABEL)
    shutil.copytree(folder / "whole", folder / "again")
    shutil.copytree(folder / "whole.work", folder / "again.work")
    return folder


def train(folder: Path, run: Path, stores: str, *more: Any) -> dict[str, Any]:
    given = [word for name in stores.split() for word in ("--store", folder / name)]
    annotated = ("--annotations", folder / "annotations")
    said = succeed("train", "--run", run, *STUDENT, *MACHINE, *given, *annotated, *more, "--json")
    result: dict[str, Any] = json.loads(said.stdout)
    return result


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(run / "final.safetensors")[0]


def test_two_parts_are_read_as_one_store(folder: Path, tmp_path: Path):
    one = train(folder, tmp_path / "whole", "whole")
    parts = train(folder, tmp_path / "parts", "one two")
    assert one["with_teacher"] == parts["with_teacher"] == COUNT
    mine, theirs = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        torch.testing.assert_close(theirs[name], value, rtol=1e-5, atol=1e-6, msg=name)
    rows, others = (RunFolder.open(tmp_path / run).metrics() for run in ("whole", "parts"))
    for row, other in zip(rows, others, strict=True):
        assert row["kept_slots"] == other["kept_slots"] > 0
        assert row["total"] == pytest.approx(other["total"], rel=1e-5)


def test_one_teacher_twice_is_that_teacher_once(folder: Path, tmp_path: Path):
    train(folder, tmp_path / "once", "whole")
    said = train(folder, tmp_path / "twice", "whole again")
    assert f"{COUNT} of {COUNT} pictures of 2 stores have soft labels of several" in said["notes"]
    for name, value in weights(tmp_path / "once").items():
        torch.testing.assert_close(weights(tmp_path / "twice")[name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_each_teacher_says_its_own_in_the_students_classes(
    folder: Path, tmp_path: Path, seen: list[tuple[TrainingPicture, Sample]]
):
    size = ("--input-size", SIDE, "--augment", "none")
    train(folder, tmp_path / "run", "whole other", *size, "--store-weight", 0.7, "--store-weight", 0.6)
    stores = [LabelStore.open(folder / name) for name in ("whole", "other")]
    assert len(seen) == 2 * COUNT
    for item, sample in seen:
        assert [(target.teacher, target.weight) for target in sample.teachers] == [(0, 0.7), (1, 0.6)]
        rows = [store.manifest.keys.index(item.key) for store in stores]
        first, other = (
            store.read_rows("soft_labels", row, row + 1)[0].astype(np.float32)
            for store, row in zip(stores, rows, strict=True)
        )
        np.testing.assert_array_equal(sample.teachers[0].dense, first)
        # on another grid the slots differ, but every kept one has its teacher's objectness and classes, by name
        mine = sample.teachers[1].dense.transpose(0, 2, 3, 1).reshape(-1, 5 + len(CLASSES))
        theirs = other.transpose(0, 2, 3, 1).reshape(-1, 5 + len(CLASSES))
        by_name = theirs[:, [4, *range(5, 5 + len(CLASSES))[::-1]]]
        kept = mine[mine[:, 4] > 0]
        assert len(kept) > 0
        for slot in kept:
            assert (by_name == slot[4:]).all(axis=1).any()
    row = RunFolder.open(tmp_path / "run").metrics()[0]
    assert row["with_teacher"] == COUNT


def test_labels_of_another_file_have_no_say(folder: Path, tmp_path: Path, seen: list[tuple[TrainingPicture, Sample]]):
    copy = shutil.copytree(folder, tmp_path / "copy")
    changed = next((copy / "pictures/one").iterdir())
    changed.write_bytes(changed.read_bytes() + b"0")
    images = ("--images", copy / "pictures/one", "--images", copy / "pictures/two")
    succeed("label", *images[1::2], "--teacher", copy / "first.safetensors", "--store", copy / "new", *LABEL)
    train(copy, tmp_path / "run", "whole new", *images)
    for item, sample in seen:
        if item.path.name == changed.name:
            assert [(target.teacher, target.weight) for target in sample.teachers] == [(1, 1.0)]
            assert "differs" in sample.problem
        else:
            assert [(target.teacher, target.weight) for target in sample.teachers] == [(0, 0.5), (1, 0.5)]
    assert {row["problems"] for row in RunFolder.open(tmp_path / "run").metrics()} == {1}


def test_one_folder_does_not_stand_for_two(folder: Path, tmp_path: Path):
    given = ("--store", folder / "one", "--store", folder / "two", "--images", folder / "pictures/one")
    refused = distill("train", "--run", tmp_path / "run", *STUDENT, *MACHINE, *given)
    assert refused.status == 2
    assert "No folder was given for the pictures of two" in refused.error


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (("--store-weight", 1), "1 --store-weight for 2 --store"),
        (("--store-weight", 1, "--store-weight", 0), "give numbers above 0"),
        (("--store-weight", 1, "--store-weight", "nan"), "give numbers above 0"),
    ],
)
def test_weights_must_fit_the_stores(folder: Path, tmp_path: Path, given: tuple[Any, ...], expected: str):
    stores = ("--store", folder / "one", "--store", folder / "two")
    outcome = distill("train", "--run", tmp_path / "run", *STUDENT, *MACHINE, *stores, *given)
    assert outcome.status == 2
    assert expected in outcome.error
    assert not (tmp_path / "run").exists()
