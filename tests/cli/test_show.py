"""`distill show`: pictures that can be looked at, of what is really stored."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data.images import read_picture
from data.store.layout import SOFT_LABELS
from data.store.reader import LabelStore
from pipeline import show_command
from pipeline.show_command import boxes_of
from stages.networks.region import decode_entries
from tests.command_line import distill, succeed
from tests.pictures import CLASSES, SIDE, copy_pictures, damage, snapshot, write_list, write_teacher

LABEL = ("--device", "cpu", "--precision", "float32", "--batch-size", 2, "--shard-size", 2, "--threads", 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """pictures/ (the second damaged), store/, teacher.safetensors, run/."""
    folder = tmp_path_factory.mktemp("show")
    pictures = copy_pictures(folder / "pictures", 4)
    damage(pictures[1])
    teacher = write_teacher(folder / "teacher.safetensors")
    succeed("label", folder / "pictures", "--teacher", teacher, "--store", folder / "store", *LABEL)
    write_list(folder / "val.txt", [pictures[3].stem])
    student = ("--model", "tiny-yolo", "--width", 0.05, "--epochs", 3, "--batch-size", 2, "--device", "cpu")
    succeed("train", "--run", folder / "run", "--store", folder / "store", "--val-list", folder / "val.txt", *student)
    return folder


def keys(folder: Path) -> tuple[str, ...]:
    return LabelStore.open(folder / "store").manifest.keys


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What was drawn: (picture, boxes, labels, scores, classes)."""
    calls, real = [], show_command.draw_boxes

    def spy(*given: Any) -> Any:
        calls.append(given)
        return real(*given)

    monkeypatch.setattr(show_command, "draw_boxes", spy)
    return calls


def test_a_stores_labelled_pictures_are_drawn(folder: Path, tmp_path: Path, drawn: list[tuple[Any, ...]]):
    outcome = succeed("show", folder / "store", "--out", tmp_path / "store.png", "--min-objectness", 0.02)
    assert outcome.stdout.startswith(f"{tmp_path / 'store.png'}: 3 pictures of")
    assert min(read_picture(tmp_path / "store.png").pixels.shape[:2]) > 200
    shown = [0, 2, 3]
    assert len(drawn) == 3
    store = LabelStore.open(folder / "store")
    for row, (picture, boxes, labels, scores, classes) in zip(shown, drawn, strict=True):
        np.testing.assert_array_equal(picture, read_picture(folder / keys(folder)[row]).pixels)
        stored = store.read_rows(SOFT_LABELS, row, row + 1)[0]
        expected = np.sort(stored[:, 4][stored[:, 4] >= np.float16(0.02)].astype(np.float32))[::-1]
        np.testing.assert_array_equal(scores, expected)
        assert (len(boxes), len(labels), tuple(classes)) == (len(expected), len(expected), CLASSES)


def test_boxes_are_in_the_pictures_pixels(folder: Path):
    """Letterbox undone by hand: 640 × 480 on a 96 × 96 input is 96 × 72 with 12 rows of grey above."""
    store = LabelStore.open(folder / "store")
    picture = read_picture(folder / keys(folder)[0]).pixels
    assert picture.shape == (480, 640, 3)
    stored = store.read_rows(SOFT_LABELS, 0, 1)
    found = boxes_of(stored, store, picture, 0.02)
    entries = torch.from_numpy(stored.astype(np.float32))
    boxes = decode_entries(entries, torch.tensor(store.attributes.teacher.anchors))[0].reshape(-1, 4).numpy()
    objectness = entries[0, :, 4].reshape(-1).numpy()
    assert len(found) > 0
    for box, score in zip(found.boxes, found.scores, strict=True):
        x, y, w, h = boxes[np.flatnonzero(objectness == score)[0]] * SIDE
        by_hand = np.array([x - w / 2, y - h / 2 - 12, x + w / 2, y + h / 2 - 12]) * 640 / 96
        np.testing.assert_allclose(box, by_hand, atol=0.05)


def test_with_the_teacher_before_and_after_are_drawn(folder: Path, tmp_path: Path, drawn: list[tuple[Any, ...]]):
    flags = ("--count", 1, "--teacher", folder / "teacher.safetensors", "--min-objectness", 0.02)
    succeed("show", folder / "store", "--out", tmp_path / "x.png", *flags)
    (_, _, _, before, _), (_, _, _, after, _) = drawn
    assert 0 < len(after) < len(before)
    assert np.isin(after, before).mean() > 0.9  # the same numbers, but for rounding in another batch


def test_chosen_pictures_are_shown(folder: Path, tmp_path: Path, drawn: list[tuple[Any, ...]]):
    chosen = keys(folder)[2]
    succeed("show", folder / "store", "--out", tmp_path / "x.jpg", "--key", chosen)
    (call,) = drawn
    np.testing.assert_array_equal(call[0], read_picture(folder / chosen).pixels)


def test_a_picture_that_was_rejected_is_refused(folder: Path, tmp_path: Path):
    outcome = distill("show", folder / "store", "--out", tmp_path / "x.png", "--key", keys(folder)[1])
    assert outcome.status == 2
    assert "was rejected" in outcome.error
    assert not (tmp_path / "x.png").exists()


def test_a_picture_that_changed_is_refused(folder: Path, tmp_path: Path):
    pictures = shutil.copytree(folder / "pictures", tmp_path / "pictures")
    first = sorted(pictures.iterdir())[0]
    for change in (lambda: first.write_bytes(first.read_bytes() + b"\0"), lambda: damage(first)):
        change()
        outcome = distill("show", folder / "store", "--images", pictures, "--out", tmp_path / "x.png")
        assert outcome.status == 2
        assert f"{first} has changed since" in outcome.error


def test_a_runs_curves_are_drawn(folder: Path, tmp_path: Path):
    outcome = succeed("show", folder / "run", "--out", tmp_path / "run.png")
    assert outcome.stdout == f"{tmp_path / 'run.png'}: 3 epochs of {folder / 'run'}\n"
    assert min(read_picture(tmp_path / "run.png").pixels.shape[:2]) > 200


def test_nothing_is_written_but_the_picture(folder: Path, tmp_path: Path):
    before = snapshot(folder)
    succeed("show", folder / "store", "--out", tmp_path / "x.png")
    succeed("show", folder / "run", "--out", tmp_path / "y.png")
    assert snapshot(folder) == before
    assert sorted(snapshot(tmp_path)) == ["x.png", "y.png"]


def test_a_stores_pictures_are_found_where_they_are_now(folder: Path, tmp_path: Path):
    shutil.copytree(folder / "store", tmp_path / "store")
    shutil.copytree(folder / "pictures", tmp_path / "moved")
    flags = ("--images", tmp_path / "moved", "--out", tmp_path / "x.png")
    succeed("show", tmp_path / "store", *flags)
    (tmp_path / "store.work").mkdir()
    (tmp_path / "store.work/roots.json").write_text(json.dumps({"pictures": str(tmp_path / "moved")}))
    succeed("show", tmp_path / "store", "--out", tmp_path / "y.png")
    assert (tmp_path / "x.png").read_bytes() == (tmp_path / "y.png").read_bytes()
