"""`distill label --add`: a store grows by new pictures, and what came before is not touched."""

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.pictures import find_pictures
from data.store.files import files_below
from data.store.folder_claims import FolderClaims
from data.store.grow import grow_store
from data.store.layout import work_path
from data.store.reader import LabelStore
from pipeline import label_growth
from pipeline.label_growth import CREATE
from pipeline.label_manifest import hash_pictures
from pipeline.label_plan import list_pictures
from pipeline.progress import SilentProgress
from pipeline.store_roots import remembered_roots
from pipeline.store_watch import StoreWatch
from stages.label.teacher import Teacher
from tests.command_line import Outcome, distill, start_process, succeed
from tests.labelling import SETTINGS, slowly, until
from tests.pictures import copy_pictures, write_teacher

OLD, NEW = 8, 5
"""Of shards of 3: the last old one has 2 pictures."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """old/ and new/ pictures, teacher.safetensors, and store/ of the old ones."""
    pictures = copy_pictures(tmp_path / "all", OLD + NEW)
    for name, some in (("old", pictures[:OLD]), ("new", pictures[OLD:])):
        (tmp_path / name).mkdir()
        for picture in some:
            picture.rename(tmp_path / name / picture.name)
    write_teacher(tmp_path / "teacher.safetensors", side=64)
    label(tmp_path, "store", "old")
    return tmp_path


def arguments(folder: Path, store: str, images: str, *more: Any) -> tuple[Any, ...]:
    named = [folder / name for name in images.split()]
    return ("label", *named, "--teacher", folder / "teacher.safetensors", "--store", folder / store, *SETTINGS, *more)


def label(folder: Path, store: str, images: str, *more: Any) -> Outcome:
    return succeed(*arguments(folder, store, images, *more))


def rows(store: Path) -> dict[str, np.ndarray[Any, Any]]:
    opened = LabelStore.open(store)
    assert opened.pending_shards() == []
    found = {}
    for shard in range(opened.shard_count):
        read = opened.read_shard(shard)
        found |= {key: read.soft_labels[i] for i, key in enumerate(read.keys) if key}
    return found


def test_new_pictures_become_new_shards(folder: Path):
    store = folder / "store"
    before = {file: (store / file).stat().st_ino for file in files_below(store) if "/c." in file}
    said = label(folder, "store", "new", "--add")
    assert f"{NEW} pictures were added to the {OLD}" in said.stderr
    assert f"{OLD + NEW} of {OLD + NEW} pictures in 5 shards; {NEW} labelled now" in said.stdout
    after = {file: (store / file).stat().st_ino for file in before}
    assert {file for file in before if before[file] != after[file]} == {"image/status/c.2"}
    succeed("verify", store, "--teacher", folder / "teacher.safetensors")

    label(folder, "at-once", "old new")
    grown, at_once = rows(store), rows(folder / "at-once")
    assert grown.keys() == at_once.keys()
    for key, labels in at_once.items():  # in other batches, so equal within tolerance
        np.testing.assert_allclose(grown[key].astype(np.float32), labels.astype(np.float32), rtol=2e-3, atol=2e-3)


def test_the_same_command_again_adds_nothing_and_so_does_one_for_all_pictures(folder: Path):
    label(folder, "store", "new", "--add")
    whole = {file: (folder / "store" / file).read_bytes() for file in files_below(folder / "store")}
    for images, more in (("new", ["--add"]), ("old new", ["--add"]), ("old new", [])):
        said = label(folder, "store", images, *more)
        assert "0 labelled now" in said.stdout
        assert "added" not in said.stderr
    assert {file: (folder / "store" / file).read_bytes() for file in files_below(folder / "store")} == whole
    refused = distill(*arguments(folder, "store", "new"))
    assert refused.status == 2
    assert f"{OLD} missing" in refused.stderr
    refused = distill(*arguments(folder, "store", "old"))
    assert refused.status == 2
    assert "missing (new/" in refused.stderr


def test_broken_off_the_same_command_goes_on_without_the_old_pictures(folder: Path):
    shutil.move(folder / "old", folder / "elsewhere")
    process = start_process(*arguments(folder, "store", "new", "--add"), by=slowly(folder, 0, stuck_after=2))
    until(lambda: len(LabelStore.open(folder / "store").finished_shards()) == 4, "a new shard is there", process)
    process.kill()
    process.wait()
    label(folder, "store", "new", "--add")
    assert len(rows(folder / "store")) == OLD + NEW
    succeed("verify", folder / "store")


def test_a_student_learns_from_old_and_new_pictures(folder: Path):
    label(folder, "store", "new", "--add")
    run = succeed(
        *("train", "--store", folder / "store", "--run", folder / "run", "--model", "f-yolo", "--width", 0.0625),
        *("--epochs", 1, "--batch-size", 4, "--val-fraction", 0, "--device", "cpu", "--json"),
    )
    result = json.loads(run.stdout)
    assert result["pictures"] == result["with_teacher"] == OLD + NEW


def test_workers_of_one_machine_label_what_was_added(folder: Path):
    label(folder, "store", "new", "--add", "--devices", 2)
    assert len(rows(folder / "store")) == OLD + NEW
    succeed("verify", folder / "store")


def test_copies_of_what_is_there_are_left_out(folder: Path):
    shutil.copy(next((folder / "old").iterdir()), folder / "new" / "copy.jpg")
    shutil.copy(sorted((folder / "new").iterdir())[0], folder / "new" / "another.jpg")
    said = label(folder, "store", "new", "--add", "--deduplicate")
    assert f"{NEW} pictures were added" in said.stderr
    assert len(rows(folder / "store")) == OLD + NEW
    assert "0 labelled now" in label(folder, "store", "new", "--add", "--deduplicate").stdout
    (folder / "copies").mkdir()
    shutil.copy(next((folder / "old").iterdir()), folder / "copies" / "copy.jpg")
    assert "0 labelled now" in label(folder, "store", "copies", "--add", "--deduplicate").stdout  # nothing but copies
    refused = distill(*arguments(folder, "store", "copies", "--deduplicate"))
    assert refused.status == 2
    assert "all 1 pictures given are copies" in refused.error


def test_pictures_of_a_folder_that_was_moved_are_added_if_it_is_the_same_folder(folder: Path):
    moved = folder / "elsewhere" / "old"
    moved.parent.mkdir()
    shutil.move(folder / "old", moved)
    for picture in (folder / "new").iterdir():
        shutil.copy(picture, moved)
    label(folder, "store", "elsewhere/old", "--add")
    assert len(rows(folder / "store")) == OLD + NEW
    assert remembered_roots(folder / "store") == {"old": moved}


def test_a_folder_that_lost_pictures_is_still_the_same_folder(folder: Path):
    pictures = sorted((folder / "old").iterdir())
    pictures[0].unlink()
    shutil.copy(sorted((folder / "new").iterdir())[0], folder / "old" / "new.jpg")
    label(folder, "store", "old", "--add")
    assert len(rows(folder / "store")) == OLD + 1


def test_many_gaps_cost_no_forward_pass_and_are_not_counted(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """A shard of 3 of which two are gaps, in batches of 2: the second batch is nothing but gaps."""
    (folder / "few").mkdir()
    shutil.copy(sorted((folder / "new").iterdir())[0], folder / "few")
    store = folder / "single"
    label(folder, "single", "few")
    (store / "ledger/00000000.json").unlink()
    grow_store(LabelStore.open(store), hash_pictures(find_pictures([str(folder / "new")]), 1, SilentProgress()))
    batches = []
    real = Teacher.label
    monkeypatch.setattr(Teacher, "label", lambda self, inputs: batches.append(len(inputs)) or real(self, inputs))
    result = json.loads(label(folder, "single", "few new", "--add", "--json").stdout)
    assert (result["pictures"], result["labelled_now"], len(batches)) == (1 + NEW, 1 + NEW, 1 + 2 + 1)
    counted = CountedProgress()
    watch = StoreWatch(store, counted)
    watch.look()
    assert watch.whole
    assert counted.said == [(1 + NEW, 1 + NEW)]


class CountedProgress(SilentProgress):
    def __init__(self) -> None:
        self.said: list[tuple[int, int]] = []

    def count(self, done: int, total: int) -> None:
        self.said.append((done, total))


def test_who_waits_for_another_that_adds_pictures_does_not_list_them_all_the_time(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    listed = []
    monkeypatch.setattr(label_growth, "list_pictures", lambda request: listed.append(1) or list_pictures(request))
    with FolderClaims(folder / "store", "somebody") as claims:
        assert claims.take(CREATE)
        release = threading.Timer(4 * label_growth.POLL_S, claims.release, [CREATE])
        release.start()
        label(folder, "store", "new", "--add")
        release.join()
    assert len(rows(folder / "store")) == OLD + NEW
    assert len(listed) == 2  # before and after


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        ("another folder of that name", "calls another folder old"),
        ("another folder of that name with one picture of it", "7 of its pictures are not in"),
        ("the old one is still there", "calls another folder old"),
        ("changed", "1 changed"),
        ("another teacher", "was made with other settings"),
        ("a worker", "is being labelled by others"),
    ],
)
def test_what_cant_be_added_is_refused_and_the_store_stays(folder: Path, spoil: str, expected: str):
    images = "old new"
    (folder / "other").mkdir()
    if spoil == "another folder of that name":
        shutil.move(folder / "new", folder / "other" / "old")
        images = "other/old"
    if spoil == "another folder of that name with one picture of it":
        shutil.move(folder / "new", folder / "other" / "old")
        shutil.copy(sorted((folder / "old").iterdir())[0], folder / "other" / "old")
        shutil.rmtree(folder / "old")
        images = "other/old"
    if spoil == "the old one is still there":
        shutil.copytree(folder / "old", folder / "other" / "old")
        shutil.copytree(folder / "new", folder / "other" / "old", dirs_exist_ok=True)
        images = "other/old"
    if spoil == "changed":
        picture = sorted((folder / "old").iterdir())[0]
        picture.write_bytes(picture.read_bytes() + b"0")
    if spoil == "another teacher":
        write_teacher(folder / "teacher.safetensors", side=64, seed=5)
    with FolderClaims(folder / "store", "somebody") as claims:
        if spoil == "a worker":
            claims.take("00000001")
        refused = distill(*arguments(folder, "store", images, "--add"))
    assert refused.status == (1 if spoil == "a worker" else 2)
    assert expected in refused.stderr
    assert len(rows(folder / "store")) == OLD
    succeed("verify", folder / "store")


def test_what_is_left_of_the_old_pictures_needs_their_folder(folder: Path):
    store = folder / "store"
    (store / "ledger" / "00000001.json").unlink()
    shutil.rmtree(work_path(store), ignore_errors=True)
    refused = distill(*arguments(folder, "store", "new", "--add"))
    assert refused.status == 2
    assert "where its pictures old/… are is not known" in refused.stderr
    label(folder, "store", "old new", "--add")
    assert len(rows(store)) == OLD + NEW
