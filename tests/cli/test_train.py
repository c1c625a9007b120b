"""`distill train`: who is trained on what, and what a run leaves behind."""

import hashlib
import json
import math
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data.checkpoint import load_checkpoint
from data.images import decode
from data.store.reader import LabelStore
from data.views import render, resize_view
from pipeline import train_command
from pipeline.keeper import Validator
from pipeline.run_folder import RunFolder
from stages.networks.model import load_detector
from stages.networks.network import Detector
from stages.student import loader
from stages.student.distillation_loss import DistillationConfig
from stages.student.objective import ObjectiveConfig
from stages.student.samples import Sample, TrainingPicture
from stages.student.trainer import OptimiserConfig, Trainer
from tests.command_line import distill, run_python, succeed
from tests.pictures import (
    CLASSES,
    SIDE,
    copy_annotations,
    copy_pictures,
    damage,
    snapshot,
    stems,
    write_darknet,
    write_list,
    write_teacher,
)

LABEL = ("--device", "cpu", "--precision", "float32", "--batch-size", 4, "--shard-size", 4, "--threads", 1)
STUDENT = ("--model", "tiny-yolo", "--width", 0.05, "--epochs", 2, "--batch-size", 2)
MACHINE = ("--device", "cpu", "--precision", "float32", "--workers", 1)
TERMS = {"box", "objectness", "class"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """pictures/ (12), annotations/ of the first 8, a store of all, and lists: 6 annotated and 3 unlabelled to train on
    (train.txt), 2 annotated to validate (val.txt), one to test (test.txt)."""
    folder = tmp_path_factory.mktemp("train")
    copy_pictures(folder / "pictures", 12)
    names = stems(12)
    copy_annotations(folder / "annotations", names[:8])
    write_list(folder / "train.txt", [*names[:6], *names[8:11]])
    write_list(folder / "val.txt", names[6:8])
    write_list(folder / "test.txt", names[11:])
    label(folder)
    return folder


def label(folder: Path, *more: Any) -> None:
    teacher = write_teacher(folder / "teacher.safetensors")
    succeed("label", folder / "pictures", "--teacher", teacher, "--store", folder / "store", *LABEL, *more)


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    """The same, to be spoilt: the store finds its pictures in their new place."""
    copy = shutil.copytree(folder, tmp_path / "copy", ignore=shutil.ignore_patterns("run*"))
    note = {"pictures": str(copy / "pictures")}
    (copy / "store.work/roots.json").write_text(json.dumps(note))
    return copy


def lists(folder: Path) -> tuple[Any, ...]:
    return ("--train-list", folder / "train.txt", "--val-list", folder / "val.txt", "--test-list", folder / "test.txt")


def distilled(folder: Path) -> tuple[Any, ...]:
    return ("--store", folder / "store", "--annotations", folder / "annotations", *lists(folder))


def undistilled(folder: Path) -> tuple[Any, ...]:
    return ("--images", folder / "pictures", "--annotations", folder / "annotations", *lists(folder))


def train(run: Path, *arguments: Any) -> dict[str, Any]:
    """The result of a training that must work."""
    result = json.loads(succeed("train", "--run", run, *STUDENT, *MACHINE, *arguments, "--json").stdout)
    assert isinstance(result, dict)
    return result


def test_a_run_holds_what_it_says(folder: Path, tmp_path: Path, seen: list[tuple[TrainingPicture, Sample]]):
    result = train(tmp_path / "run", *distilled(folder))
    assert {name: result[name] for name in ("pictures", "labelled", "with_teacher", "validation", "epochs")} == {
        "pictures": 9,
        "labelled": 6,
        "with_teacher": 9,
        "validation": 2,
        "epochs": 2,
    }
    rows = RunFolder(tmp_path / "run").metrics()
    assert [row["epoch"] for row in rows] == [1, 2]
    assert [row["step"] for row in rows] == [4, 8]
    for row in rows:
        assert (row["batches"], row["pictures"], row["with_teacher"], row["problems"]) == (4, 8, 8, 0)
        assert row["kept_slots"] > 0
        assert {name for name in row if name.startswith("distillation/")} == {f"distillation/{t}" for t in TERMS}
        assert all(row[f"distillation/{term}"] > 0 for term in TERMS)
        assert math.isclose(
            row["total"],
            sum(value for name, value in row.items() if name.startswith(("region/", "distillation/"))),
            rel_tol=1e-5,
        )
        assert 0 <= row["validation/ap50_voc07"] <= 1
    for name in ("best", "final"):
        detector = load_detector(tmp_path / "run" / f"{name}.safetensors")
        assert (detector.spec.model, detector.classes) == ("tiny-yolo", CLASSES)
        assert detector.anchors == LabelStore.open(folder / "store").attributes.teacher.anchors
    assert list((tmp_path / "run/tensorboard").iterdir())
    settings = json.loads((tmp_path / "run/run.json").read_text())
    assert settings["resolved"]["input_size"] == SIDE
    assert result["best"] == max(row["validation/ap50_voc07"] for row in rows)
    assert len(seen) == 2 * 4 * 2


def test_pictures_kept_for_judging_are_never_trained_on(
    folder: Path, tmp_path: Path, seen: list[tuple[TrainingPicture, Sample]]
):
    names = stems(12)
    train(tmp_path / "run", *distilled(folder), "--labelled-share", 0.5, "--epochs", 4)
    trained = Counter(Path(item.key).stem for item, _ in seen)
    assert set(trained) == {*names[:6], *names[8:11]}
    seen.clear()
    without_train_list = (
        *("--store", folder / "store", "--annotations", folder / "annotations"),
        *("--val-list", folder / "val.txt", "--test-list", folder / "test.txt"),
    )
    train(tmp_path / "other", *without_train_list, "--epochs", 4)
    assert {Path(item.key).stem for item, _ in seen} <= {*names[:6], *names[8:11]}


def test_truth_and_soft_labels_are_the_pictures_own(
    folder: Path, tmp_path: Path, seen: list[tuple[TrainingPicture, Sample]]
):
    train(tmp_path / "run", *distilled(folder), "--augment", "none", "--batch-size", 3)
    store = LabelStore.open(folder / "store")
    row_of = {key: row for row, key in enumerate(store.manifest.keys)}
    annotated = set(stems(8))
    assert len(seen) == 2 * 9
    for item, sample in seen:
        assert sample.labelled == (Path(item.key).stem in annotated)
        assert bool(len(sample.labels)) == sample.labelled
        row = row_of[item.key]
        stored = store.read_rows("soft_labels", row, row + 1)[0]
        (target,) = sample.teachers
        np.testing.assert_array_equal(target.dense, stored.astype(np.float32))
        assert item.path.read_bytes() == (folder / item.key).read_bytes()


def test_labelled_empty_and_unlabelled_are_three_things(
    copied: Path, tmp_path: Path, seen: list[tuple[TrainingPicture, Sample]]
):
    names = stems(12)
    empty = copied / "annotations" / f"{names[0]}.xml"
    text = empty.read_text()
    empty.write_text(text[: text.index("<object>")] + "</annotation>")
    result = train(tmp_path / "run", *distilled(copied), "--batch-size", 3)
    assert (result["pictures"], result["labelled"]) == (9, 6)
    states = {Path(item.key).stem: (sample.labelled, len(sample.labels) > 0) for item, sample in seen}
    assert states[names[0]] == (True, False)
    assert all(states[name] == (False, False) for name in names[8:11])
    assert all(states[name][0] for name in names[1:6])


def test_the_teacher_is_neither_built_nor_opened(copied: Path, tmp_path: Path):
    """Its weights are gone, no module of the label stage is loaded, and nobody even asks for the file."""
    (copied / "teacher.safetensors").unlink()
    script = """
import sys
opened = []
sys.addaudithook(lambda event, given: opened.append(str(given[0])) if event == "open" else None)
from cli.main import main
sys.argv = ["distill", *sys.argv[1:]]
main_ended = 0
try:
    main()
except SystemExit as end:
    main_ended = end.code or 0
assert main_ended == 0, main_ended
loaded = [name for name in sys.modules if name.startswith("stages.label") or name == "pipeline.label"]
assert not loaded, loaded
assert any("soft_labels" in name for name in opened)
assert not any(name.endswith("teacher.safetensors") for name in opened)
print("learnt")
"""
    arguments = ("train", "--run", tmp_path / "run", *STUDENT, *MACHINE, *distilled(copied))
    result = run_python(script, *arguments)
    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith("learnt\n")
    assert all(row["distillation/box"] > 0 for row in RunFolder(tmp_path / "run").metrics())


def test_every_epoch_shows_other_views(folder: Path, tmp_path: Path, seen: list[tuple[TrainingPicture, Sample]]):
    train(tmp_path / "run", *distilled(folder), "--batch-size", 9, "--epochs", 3)
    views: dict[str, list[Sample]] = {}
    for item, sample in seen:
        views.setdefault(item.key, []).append(sample)
    assert len(views) == 9
    for samples in views.values():
        first, second, third = (sample.picture for sample in samples)
        assert (first != second).any()
        assert (second != third).any()


def test_neither_threads_nor_the_cache_change_what_is_learnt(folder: Path, tmp_path: Path):
    train(tmp_path / "one", *distilled(folder), "--image-cache", 0)
    train(tmp_path / "three", *distilled(folder), "--workers", 3)
    for name in ("final", "best"):
        file = f"{name}.safetensors"
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "three" / file).read_bytes()
    assert without_seconds(tmp_path / "one") == without_seconds(tmp_path / "three")


def without_seconds(run: Path) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in RunFolder(run).metrics()]


def test_the_seed_decides_the_start_and_every_view(
    folder: Path, tmp_path: Path, seen: list[tuple[TrainingPicture, Sample]]
):
    """With a learning rate of 0 the weights stay as they were drawn; one epoch shows every picture once."""
    still = ("--learning-rate", 0, "--epochs", 1, "--batch-size", 9)
    drawn, views = [], []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(tmp_path / name, *distilled(folder), *still, "--seed", seed)
        weights = load_detector(tmp_path / name / "final.safetensors").convolutions()
        drawn.append(torch.cat([block.convolution.weight.detach().flatten() for _, block in weights]))
        views.append({item.key: sample.picture for item, sample in seen})
        seen.clear()
    assert torch.equal(drawn[0], drawn[1])
    assert (drawn[0] == drawn[2]).float().mean() < 0.01
    for key, picture in views[0].items():
        np.testing.assert_array_equal(picture, views[1][key])
        assert (picture != views[2][key]).any()


def test_the_losses_and_the_optimiser_are_those_asked_for(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    made = []

    class Spy(Trainer):
        def __init__(self, detector: Any, losses: Any, config: Any, **named: Any) -> None:
            made.append((losses, config))
            super().__init__(detector, losses, config, **named)

    monkeypatch.setattr(train_command, "Trainer", Spy)
    short = ("--epochs", 1)
    train(tmp_path / "plain", *distilled(folder), *short)
    train(tmp_path / "unclipped", *distilled(folder), *short, "--clip-norm", 0)
    flags = ("--momentum", 0.5, "--weight-decay", 0.25, "--clip-norm", 3, "--ema", 0.75)
    terms = ("--distillation-weight", 0.5, "--no-objectness-scaling", "--no-distill-class")
    train(tmp_path / "asked", *distilled(folder), *short, *flags, *terms)
    assert made == [
        (ObjectiveConfig(), OptimiserConfig(clip_norm=20.0)),
        (ObjectiveConfig(), OptimiserConfig(clip_norm=None)),
        (
            ObjectiveConfig(distillation=DistillationConfig(weight=0.5, objectness_scaling=False, classes=False)),
            OptimiserConfig(momentum=0.5, weight_decay=0.25, clip_norm=3.0, ema_decay=0.75),
        ),
    ]


@pytest.mark.parametrize(("augment", "moved", "recoloured"), [("none", 0, 0), ("photometric", 0, 9), ("full", 9, 9)])
def test_augmentation_is_as_strong_as_asked(
    folder: Path,
    tmp_path: Path,
    seen: list[tuple[TrainingPicture, Sample]],
    augment: str,
    moved: int,
    recoloured: int,
):
    once = ("--epochs", 1, "--batch-size", 9, "--no-flip", "--augment", augment)
    train(tmp_path / "run", *distilled(folder), *once)
    places, colours = [], []
    for item, sample in seen:
        pixels = decode(item.path.read_bytes())
        plain = render(pixels, resize_view("letterbox", *pixels.shape[:2], SIDE, SIDE))
        grey = (plain == 0.5).all(axis=0)
        # the grey of a letterbox stays where it is unless the picture moves; colours are distorted in it too
        margin = sample.picture[:, grey]
        places.append(bool((margin != margin[:, :1]).any()))
        colours.append(bool((sample.picture != plain).any()))
    assert len(seen) == 9
    assert (sum(places) > 4) == bool(moved)
    assert sum(colours) == recoloured


def test_flips_can_be_switched_off(folder: Path, tmp_path: Path, seen: list[tuple[TrainingPicture, Sample]]):
    mirrored = []
    for name, flag in (("with", "--flip"), ("without", "--no-flip")):
        still = ("--epochs", 3, "--batch-size", 9, "--augment", "photometric", flag)
        train(tmp_path / name, *distilled(folder), *still)
        store = LabelStore.open(folder / "store")
        rows = [store.manifest.keys.index(item.key) for item, _ in seen]
        stored = [store.read_rows("soft_labels", row, row + 1)[0] for row in rows]
        mirrored.append(sum((sample.teachers[0].dense != s).any() for (_, sample), s in zip(seen, stored, strict=True)))
        seen.clear()
    assert 5 < mirrored[0] < 22
    assert mirrored[1] == 0


def test_a_share_of_labelled_pictures_is_kept_in_every_batch(folder: Path, tmp_path: Path):
    train(tmp_path / "run", *distilled(folder), "--labelled-share", 0.3, "--batch-size", 3, "--epochs", 3)
    rows = RunFolder(tmp_path / "run").metrics()
    assert [(row["batches"], row["labelled"], row["with_teacher"]) for row in rows] == [(3, 3, 9)] * 3


def test_the_last_epoch_is_always_validated(folder: Path, tmp_path: Path):
    result = train(tmp_path / "run", *distilled(folder), "--validate-every", 2, "--epochs", 3)
    rows = RunFolder(tmp_path / "run").metrics()
    assert ["validation/ap50_voc07" in row for row in rows] == [False, True, True]
    assert result["best"] == max(row["validation/ap50_voc07"] for row in rows[1:])


def test_a_changed_picture_is_masked_and_counted(
    copied: Path, tmp_path: Path, seen: list[tuple[TrainingPicture, Sample]]
):
    changed = copied / "pictures" / f"{stems(1)[0]}.jpg"
    changed.write_bytes(changed.read_bytes() + b"\0")
    result = train(tmp_path / "run", *distilled(copied), "--batch-size", 3)
    for row in RunFolder(tmp_path / "run").metrics():
        assert (row["problems"], row["with_teacher"], row["labelled"], row["pictures"]) == (1, 8, 6, 9)
    masked = [sample for item, sample in seen if item.path == changed]
    assert [(sample.teachers, sample.labelled) for sample in masked] == [((), True)] * 2
    assert "differs from the picture that was labelled" in masked[0].problem
    assert "1 pictures of the last epoch can't be decoded, or differ" in "\n".join(result["notes"])


def test_a_picture_that_cannot_be_decoded_is_masked_and_counted(
    copied: Path, tmp_path: Path, seen: list[tuple[TrainingPicture, Sample]]
):
    spoilt = copied / "pictures" / f"{stems(1)[0]}.jpg"
    damage(spoilt)
    train(tmp_path / "run", *distilled(copied), "--batch-size", 3)
    for row in RunFolder(tmp_path / "run").metrics():
        assert (row["problems"], row["with_teacher"], row["labelled"], row["pictures"]) == (1, 8, 5, 9)
    masked = [sample for item, sample in seen if item.path == spoilt]
    assert [(sample.teachers, sample.labelled) for sample in masked] == [((), False)] * 2


def test_a_picture_that_cannot_be_read_ends_the_training_and_says_how_to_go_on(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    real, reads = loader.make_sample, []

    def unreadable(item: TrainingPicture, *rest: Any, **named: Any) -> Sample:
        reads.append(item)
        if len(reads) == 12:  # in the second epoch
            raise PermissionError(13, "Permission denied", str(item.path))
        return real(item, *rest, **named)

    monkeypatch.setattr(loader, "make_sample", unreadable)
    outcome = distill("train", "--run", tmp_path / "run", *STUDENT, *MACHINE, *distilled(copied))
    assert outcome.status == 1
    assert f"{reads[11].path}" in outcome.error
    assert "Permission denied" in outcome.error
    assert "--resume" in outcome.error
    monkeypatch.undo()
    train(tmp_path / "run", *distilled(copied), "--resume")
    assert [row["epoch"] for row in RunFolder(tmp_path / "run").metrics()] == [1, 2]


def test_other_pictures_under_the_same_names_are_no_teacher(copied: Path, tmp_path: Path):
    """Frames of another camera are often called the same: without the digests they would be learnt with its labels."""
    paths = sorted((copied / "pictures").iterdir())
    contents = [path.read_bytes() for path in paths]
    for path, content in zip(paths, contents[1:] + contents[:1], strict=True):
        path.write_bytes(content)
    outcome = distill("train", "--run", tmp_path / "run", *STUDENT, *MACHINE, *distilled(copied))
    assert outcome.status == 1
    assert "no picture of a whole epoch had soft labels that could be used: 8 differ" in outcome.error


def test_pictures_that_are_gone_are_counted(copied: Path, tmp_path: Path):
    for name in stems(2):
        (copied / "pictures" / f"{name}.jpg").unlink()
    result = train(tmp_path / "run", *distilled(copied))
    assert result["pictures"] == 7
    notes = "\n".join(result["notes"])
    assert f"2 pictures of {copied / 'store'} are absent: pictures/{stems(1)[0]}.jpg" in notes
    assert f"2 annotated pictures are absent: {stems(1)[0]}.xml" in notes
    assert f"2 entries of {copied / 'train.txt'} are absent: {stems(1)[0]}" in notes


def test_what_can_not_validate_is_said(folder: Path, tmp_path: Path):
    write_list(tmp_path / "val.txt", [stems(12)[6], stems(12)[11]])
    given = ("--store", folder / "store", "--annotations", folder / "annotations", "--val-list", tmp_path / "val.txt")
    result = train(tmp_path / "run", *given)
    assert result["validation"] == 1
    assert "1 pictures to validate on are not annotated, and are left out" in result["notes"]


def test_without_a_store_the_baseline_is_trained(folder: Path, tmp_path: Path):
    result = train(tmp_path / "run", *undistilled(folder))
    assert (result["pictures"], result["labelled"], result["with_teacher"]) == (6, 6, 0)
    rows = RunFolder(tmp_path / "run").metrics()
    assert not any(name.startswith("distillation/") for row in rows for name in row)
    assert any("3 pictures" in note and "neither annotated" in note for note in result["notes"])


def test_a_distillation_weight_of_zero_trains_as_without_a_store(folder: Path, tmp_path: Path):
    geometry = ("--input-size", SIDE, "--anchors", "model")
    train(tmp_path / "without", *undistilled(folder), *geometry)
    result = train(tmp_path / "zero", *distilled(folder), *geometry, "--distillation-weight", 0)
    assert (result["pictures"], result["with_teacher"]) == (6, 0)
    assert without_seconds(tmp_path / "zero") == without_seconds(tmp_path / "without")
    final = "final.safetensors"
    assert (tmp_path / "zero" / final).read_bytes() == (tmp_path / "without" / final).read_bytes()


def test_each_distillation_term_has_a_switch(folder: Path, tmp_path: Path):
    for term in sorted(TERMS):
        train(tmp_path / term, *distilled(folder), f"--no-distill-{term}", "--epochs", 1)
        (row,) = RunFolder(tmp_path / term).metrics()
        assert {n.partition("/")[2] for n in row if n.startswith("distillation/")} == TERMS - {term}


def test_judging_leaves_the_training_alone(folder: Path, tmp_path: Path):
    """Batch norm must not learn from what is held out, and no random number may be drawn for it."""
    by_teacher = ("--store", folder / "store", "--val-list", folder / "val.txt")
    for name, data in (("precision", distilled(folder)), ("teacher", by_teacher)):
        often, once = tmp_path / f"{name} often", tmp_path / f"{name} once"
        train(often, *data, "--validate-every", 1, "--epochs", 3)
        train(once, *data, "--validate-every", 3, "--epochs", 3)
        assert (often / "final.safetensors").read_bytes() == (once / "final.safetensors").read_bytes()
        shown, last = without_seconds(often)[-1], without_seconds(once)[-1]
        assert shown == last


def test_held_out_pictures_are_judged_as_the_teacher_saw_them(
    folder: Path, tmp_path: Path, seen: list[tuple[TrainingPicture, Sample]]
):
    train(tmp_path / "run", "--store", folder / "store", "--val-list", folder / "val.txt")
    store = LabelStore.open(folder / "store")
    judged = [(item.key, sample) for item, sample in seen if Path(item.key).stem in stems(8)[6:]]
    assert len(judged) == 2 * 2
    for key, sample in judged:
        row = store.manifest.keys.index(key)
        np.testing.assert_array_equal(sample.teachers[0].dense, store.read_rows("soft_labels", row, row + 1)[0])


def test_the_stores_geometry_is_the_students_unless_said_otherwise(folder: Path, tmp_path: Path):
    teacher = write_teacher(tmp_path / "stretched.safetensors", side=64, resize="stretch")
    store = tmp_path / "store"
    succeed("label", folder / "pictures", "--teacher", teacher, "--store", store, *LABEL)
    data = ("--store", store, "--annotations", folder / "annotations", *lists(folder), "--epochs", 1)
    for name, flags, expected in (
        ("own", (), {"height": 64, "width": 64, "resize": "stretch"}),
        ("other", ("--input-size", 96, "--resize", "letterbox"), {"height": 96, "width": 96, "resize": "letterbox"}),
    ):
        train(tmp_path / name, *data, *flags)
        assert load_checkpoint(tmp_path / name / "final.safetensors")[1]["input"] == expected


def test_a_store_and_no_annotations_trains_by_the_teacher_alone(folder: Path, tmp_path: Path):
    result = train(tmp_path / "run", "--store", folder / "store", "--val-list", folder / "val.txt", "--epochs", 3)
    rows = RunFolder(tmp_path / "run").metrics()
    assert (result["pictures"], result["labelled"], result["validation"]) == (10, 0, 2)
    assert not any(name.startswith("region/") for row in rows for name in row)
    losses = [row["validation/teacher_loss"] for row in rows]
    assert all(math.isfinite(loss) and loss > 0 for loss in losses)
    assert losses[-1] < losses[0]
    assert result["best"] == -min(losses)
    best = [row["epoch"] for row in rows if row["validation/teacher_loss"] == min(losses)]
    assert best_epoch(tmp_path / "run") == best[0]


def best_epoch(run: Path) -> int:
    return int(load_checkpoint(run / "best.safetensors")[1]["epoch"])


def test_objects_of_other_classes_are_left_out_only_when_asked(folder: Path, tmp_path: Path):
    store, classes = tmp_path / "store", ("--classes", "WBC", "--classes", "RBC")
    teacher = folder / "teacher.safetensors"
    succeed("label", folder / "pictures", "--teacher", teacher, "--store", store, *LABEL, *classes)
    data = ("--store", store, "--annotations", folder / "annotations", *lists(folder))
    outcome = distill("train", "--run", tmp_path / "run", *STUDENT, *MACHINE, *data)
    assert outcome.status == 2
    assert "'Platelets', which is none of the 2 classes (WBC, RBC)" in outcome.error
    result = train(tmp_path / "run", *data, "--drop-other-classes")
    assert load_detector(tmp_path / "run/final.safetensors").classes == ("WBC", "RBC")
    assert any("of other classes, left out" in note for note in result["notes"])


def test_pictures_of_the_seeds_own_choice_are_held_out(
    folder: Path, tmp_path: Path, seen: list[tuple[TrainingPicture, Sample]]
):
    given = ("--store", folder / "store", "--annotations", folder / "annotations", "--val-fraction", 0.5)
    result = train(tmp_path / "run", *given)
    assert result["validation"] > 0
    assert result["pictures"] + result["validation"] == 12
    assert len({item.key for item, _ in seen}) <= result["pictures"]
    assert all("validation/ap50_voc07" in row for row in RunFolder(tmp_path / "run").metrics())


def test_a_student_with_another_grid_than_the_teachers_learns_from_its_store(folder: Path, tmp_path: Path):
    for side, resize in ((64, "letterbox"), (128, "stretch")):
        run = tmp_path / str(side)
        train(
            run, *distilled(folder), "--input-size", side, "--resize", resize, "--anchors", "0.5,0.5 2,2", "--epochs", 1
        )
        (row,) = RunFolder(run).metrics()
        assert row["kept_slots"] > 0
        assert all(row[f"distillation/{term}"] > 0 for term in TERMS)
        assert load_detector(run / "best.safetensors").anchors == ((0.5, 0.5), (2.0, 2.0))


def test_anchors_are_clustered_from_the_annotations_in_cells_of_the_input(folder: Path, tmp_path: Path):
    for side in (96, 192):
        train(tmp_path / str(side), *undistilled(folder), "--anchors", "kmeans", "--input-size", side, "--epochs", 1)
    small, large = (np.array(load_detector(tmp_path / side / "final.safetensors").anchors) for side in ("96", "192"))
    np.testing.assert_allclose(large, 2 * small, rtol=0.05)
    assert (small > 0).all()
    assert (small < 3).all()


def test_a_run_without_a_store_is_a_teacher_as_it_stands(folder: Path, tmp_path: Path):
    run = tmp_path / "teacher"
    arguments = (*undistilled(folder), "--model", "yolov2", "--input-size", SIDE, "--resize", "stretch")
    succeed("train", "--run", run, *arguments, "--width", 0.05, "--epochs", 1, "--batch-size", 2, *MACHINE)
    store = tmp_path / "store"
    succeed("label", folder / "pictures", "--teacher", run, "--store", store, *LABEL)
    attributes = LabelStore.open(store).attributes
    assert (attributes.teacher.name, attributes.teacher.classes) == ("teacher", CLASSES)
    best = hashlib.sha256((run / "best.safetensors").read_bytes()).hexdigest()
    assert attributes.teacher.weights_sha256 == best
    assert (attributes.input.height, attributes.input.resize) == (SIDE, "stretch")
    succeed("verify", store, "--teacher", run)
    result = train(tmp_path / "student", "--store", store, "--annotations", folder / "annotations", *lists(folder))
    assert result["with_teacher"] == 9


def test_initial_weights_say_how_many_layers_they_gave(folder: Path, tmp_path: Path):
    # Tiny-YOLO at the least width begins 3 -> 8 channels; its first convolutions are cut from a cfg of the same widths
    cfg = (
        "[net]\nheight=96\nwidth=96\nchannels=3\n"
        + "[convolutional]\nbatch_normalize=1\nfilters=8\nsize=3\nstride=1\npad=1\nactivation=leaky\n"
        "[maxpool]\nsize=2\nstride=2\n"
        * 3
        + "[convolutional]\nbatch_normalize=1\nfilters=5\nsize=3\nstride=1\npad=1\nactivation=leaky\n"
        "[avgpool]\n[softmax]\n"
    )
    (tmp_path / "start.cfg").write_text(cfg)
    from stages.networks.cfg_layers import leading_convolutions
    from tests.reference_darknet import random_arrays, write_weights

    shapes, _ = leading_convolutions(cfg, "start.cfg")
    arrays = random_arrays(shapes)
    write_weights(tmp_path / "start.weights", arrays)
    given = ("--initial-weights", tmp_path / "start.weights", "--initial-cfg", tmp_path / "start.cfg")
    result = train(tmp_path / "run", *distilled(folder), *given, "--learning-rate", 0, "--epochs", 1)
    convolutions = load_detector(tmp_path / "run/final.safetensors").convolutions()
    assert f"3 of {len(convolutions)} convolutions begin with {tmp_path / 'start.weights'}" in result["notes"]
    for (_, block), values in zip(convolutions[:3], arrays[:3], strict=True):
        np.testing.assert_array_equal(block.convolution.weight.detach().numpy(), values["kernel"])


def test_a_loss_that_is_not_finite_stops_with_a_message(folder: Path, tmp_path: Path):
    arguments = (*STUDENT, *MACHINE, *distilled(folder), "--learning-rate", 1e30, "--epochs", 10)
    outcome = distill("train", "--run", tmp_path / "run", *arguments)
    assert outcome.status == 1
    assert outcome.error.startswith("distill: the loss is not finite")
    assert "--learning-rate" in outcome.error
    assert not (tmp_path / "run/final.safetensors").exists()


def test_nothing_is_written_beside_pictures_annotations_or_store(folder: Path, tmp_path: Path):
    before = snapshot(folder)
    train(tmp_path / "run", *distilled(folder))
    assert snapshot(folder) == before


@pytest.mark.parametrize("model", ["f-yolo", "tiny-yolo", "yolov2"])
def test_every_model_learns(folder: Path, tmp_path: Path, model: str):
    arguments = (*distilled(folder), "--augment", "none", "--batch-size", 4, "--epochs", 12)
    run = tmp_path / "run"
    succeed("train", "--run", run, *arguments, "--model", model, "--width", 0.1, *MACHINE)
    totals = [row["total"] for row in RunFolder(run).metrics()]
    assert min(totals[-3:]) < 0.6 * totals[0]
    assert load_detector(run / "final.safetensors").spec.model == model


def test_mixed_precision_trains_too(folder: Path, tmp_path: Path):
    for precision in ("float32", "bfloat16"):
        train(tmp_path / precision, *distilled(folder), "--precision", precision)
    full, half = (RunFolder(tmp_path / precision).metrics() for precision in ("float32", "bfloat16"))
    assert full[0]["total"] != half[0]["total"]
    assert half[0]["total"] == pytest.approx(full[0]["total"], rel=0.2)
    weights = load_detector(tmp_path / "bfloat16/final.safetensors").state_dict()
    assert {value.dtype for value in weights.values()} == {torch.float32, torch.int64}


def test_a_batch_larger_than_the_set_is_one_batch(folder: Path, tmp_path: Path):
    result = train(tmp_path / "run", *distilled(folder), "--batch-size", 64)
    assert result["pictures"] == 9
    assert [(row["batches"], row["pictures"]) for row in RunFolder(tmp_path / "run").metrics()] == [(1, 9)] * 2


def test_the_moving_average_is_what_is_judged_and_kept(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    judged = []

    def measure(detector: Detector) -> dict[str, float]:
        judged.append({name: value.clone() for name, value in detector.state_dict().items()})
        return {"validation/ap50_voc07": float(len(judged))}

    judge = Validator("later is better", measure, lambda measures: measures["validation/ap50_voc07"])
    monkeypatch.setattr(train_command, "accuracy_validator", lambda *given, **named: judge)
    train(tmp_path / "run", *distilled(folder), "--ema", 0.9)
    state = RunFolder(tmp_path / "run").load_state()
    assert state is not None
    for kept in ("final", "best"):
        weights = load_detector(tmp_path / f"run/{kept}.safetensors").state_dict()
        assert any(not torch.equal(value, state[0][f"model.{name}"]) for name, value in weights.items())
        for name, value in weights.items():
            assert torch.equal(value, state[0][f"ema.average.{name}"])
            assert torch.equal(value, judged[-1][name])


def test_multi_scale_draws_inputs_of_several_sizes(
    folder: Path, tmp_path: Path, seen: list[tuple[TrainingPicture, Sample]]
):
    arguments = (*undistilled(folder), "--multi-scale", "--epochs", 3, "--batch-size", 3)
    train(tmp_path / "run", *arguments)
    sides = {sample.picture.shape[1:] for _, sample in seen}
    assert len(sides) > 1
    assert all(height == width and height % 32 == 0 and 320 <= height <= 608 for height, width in sides)


def test_two_stores_train_one_student(folder: Path, tmp_path: Path):
    """Of other pictures under the same folder name: a picture must never be paired with the other store's labels."""
    others = tmp_path / "more/pictures"
    others.mkdir(parents=True)
    for path, name in zip(sorted((folder / "pictures").iterdir())[8:], stems(4), strict=True):
        shutil.copyfile(path, others / f"{name}.jpg")  # the first pictures' names, other pictures' content
    store = tmp_path / "store"
    succeed("label", others, "--teacher", folder / "teacher.safetensors", "--store", store, *LABEL)
    outcome = distill(
        "train", "--run", tmp_path / "run", "--store", folder / "store", "--store", store, *STUDENT, *MACHINE
    )
    assert outcome.status == 2
    assert f"pictures/{stems(1)[0]}.jpg" in outcome.error
    assert "NAME=FOLDER" in outcome.error
    assert not (tmp_path / "run").exists()

    shutil.rmtree(store)
    for path in others.iterdir():  # now neither names nor content are shared
        path.unlink()
    write_noise(others, 4)
    succeed("label", f"more={others}", "--teacher", folder / "teacher.safetensors", "--store", store, *LABEL)
    given = ("--store", folder / "store", "--store", store, "--val-list", folder / "val.txt")
    assert train(tmp_path / "run", *given)["with_teacher"] == 14


def write_noise(folder: Path, count: int) -> None:
    from PIL import Image

    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (60, 80, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"noise{number}.png")


def test_darknet_weights_start_the_same_network_whole(folder: Path, tmp_path: Path):
    weights = write_darknet(tmp_path / "darknet")
    given = ("--initial-weights", weights, "--initial-cfg", weights.with_suffix(".cfg"))
    outcome = distill("train", "--run", tmp_path / "run", *STUDENT, *MACHINE, *distilled(folder), *given)
    assert outcome.status == 2  # its first convolution has 4 filters, the student's has 8
    assert "already its first convolution differs" in outcome.error
    assert not (tmp_path / "run").exists()
