"""What can't be served: status 2, one clear sentence, no traceback, and nothing written, lost or half-written."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data.checkpoint import save_checkpoint
from data.store.layout import ledger_file
from data.store.reader import LabelStore
from pipeline.run_folder import RunFolder
from tests.command_line import distill, succeed
from tests.pictures import (
    CLASSES,
    DARKNET_CFG,
    copy_annotations,
    copy_pictures,
    snapshot,
    stems,
    write_darknet,
    write_list,
    write_student,
    write_teacher,
)

LABEL = ("--device", "cpu", "--precision", "float32", "--batch-size", 2, "--shard-size", 3, "--threads", 1)
STUDENT = ("--model", "tiny-yolo", "--width", 0.05, "--epochs", 1, "--batch-size", 2, "--device", "cpu")

Given = Callable[[Path], tuple[Any, ...]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that the commands need, in order."""
    folder = tmp_path_factory.mktemp("whole")
    copy_pictures(folder / "pictures", 6)
    names = stems(6)
    copy_annotations(folder / "annotations", names[:4])
    write_list(folder / "train.txt", [*names[:3], names[5]])
    write_list(folder / "val.txt", names[3:4])
    write_list(folder / "both.txt", names[2:4])
    write_list(folder / "strange.txt", ["somebody", "else"])
    write_teacher(folder / "teacher.safetensors")
    write_teacher(folder / "stretched.safetensors", resize="stretch")
    write_teacher(folder / "other.safetensors", seed=1)
    write_teacher(folder / "dogs.safetensors", classes=("dog", "cat"))
    write_student(folder / "student.safetensors")
    (folder / "empty").mkdir()
    (folder / "notes").mkdir()
    (folder / "notes/mine.txt").write_text("mine")
    (folder / "text.weights").write_text("no weights at all")
    (folder / "text.safetensors").write_text("no weights at all")
    save_checkpoint(folder / "state.safetensors", {"x": torch.zeros(1)}, {})
    (folder / "three.names").write_text("\n".join(CLASSES) + "\n")
    (folder / "two.names").write_text("a\nb\n")
    write_darknet(folder / "darknet")
    shutil.copyfile(folder / "darknet/tiny.weights", folder / "cut.weights")
    (folder / "cut.weights").write_bytes((folder / "darknet/tiny.weights").read_bytes()[:-4])
    write_darknet(folder / "darknet", "coarse", cfg=DARKNET_CFG.replace("[maxpool]\nsize=2\nstride=2\n", "", 2))
    succeed("label", *labelling(folder), "--store", folder / "store", *LABEL)
    dogs = (folder / "pictures", "--teacher", folder / "dogs.safetensors")
    succeed("label", *dogs, "--store", folder / "dogs", *LABEL)
    succeed("train", "--run", folder / "run", "--store", folder / "store", "--val-list", folder / "val.txt", *STUDENT)
    (folder / "begun").mkdir()
    shutil.copyfile(folder / "run/run.json", folder / "begun/run.json")
    return folder


def labelling(folder: Path) -> tuple[Any, ...]:
    return (folder / "pictures", "--teacher", folder / "teacher.safetensors")


def refuse(whole: Path, *arguments: Any, saying: str) -> None:
    """The command ends with status 2 and says it, and nothing below `whole` is touched or added."""
    before = snapshot(whole)
    try:
        outcome = distill(*arguments)
    finally:
        after = snapshot(whole)
        for added in after.keys() - before.keys():  # so that one failure does not bring others
            shutil.rmtree(whole / added, ignore_errors=True)
    assert outcome.status == 2, outcome
    assert outcome.stdout == ""
    assert saying in outcome.error
    assert "Traceback" not in outcome.stderr
    assert outcome.error.startswith(("distill: ", "Error: "))
    assert sorted(after.keys() ^ before.keys()) == []
    assert after == before


LABEL_FLAGS: list[tuple[tuple[Any, ...], str]] = [
    (("--fm-nms", "soft"), "Invalid value for '--fm-nms'"),
    (("--fm-nms-window", 2), "--fm-nms-window 2: give an odd number"),
    (("--fm-nms-window", -1), "--fm-nms-window -1: give an odd number"),
    (("--min-objectness", 1.5), "Invalid value for '--min-objectness'"),
    (("--min-objectness", "nan"), "Invalid value for '--min-objectness'"),
    (("--resize", "crop"), "Invalid value for '--resize'"),
    (("--device", "tpu"), "--device tpu is not"),
    (("--device", "cuda:99"), "--device cuda:99: this machine has"),
    (("--precision", "int8"), "--precision int8 is unknown; give auto, float32, bfloat16, float16"),
    (("--batch-size", "many"), "--batch-size many: give auto or a whole number"),
    (("--batch-size", 0), "--batch-size 0: give auto or a whole number"),
    (("--shard-size", 0), "Invalid value for '--shard-size'"),
    (("--limit", 0), "Invalid value for '--limit'"),
    (("--threads", 0), "Invalid value for '--threads'"),
    (("--input-size", 100), "--input-size 100 is not a multiple of 32; 96 is the nearest"),
    (("--input-size", 0), "--input-size 0 is not a multiple of 32"),
    (("--input-size", -32), "--input-size -32 is not a multiple of 32"),
    (("--features", "conv99"), "no layer 'conv99' to take features from; it has: conv1, pool1, conv2"),
    (("--classes", "Dog"), "the teacher knows Platelets, RBC, WBC"),
    (("--classes", "RBC", "--classes", "RBC"), "--classes names a class twice"),
    (("--strange", 1), "No such option"),
    (("--names", "two.names"), "leave out --cfg and --names"),
]


@pytest.mark.parametrize(("flags", "saying"), LABEL_FLAGS, ids=lambda value: str(value)[:40])
@pytest.mark.parametrize("dry", [False, True], ids=["", "dry"])
def test_label_refuses_flags(whole: Path, flags: tuple[Any, ...], saying: str, dry: bool):
    dry_run = ("--dry-run",) if dry else ()
    refuse(whole, "label", *labelling(whole), "--store", whole / "new", *LABEL, *flags, *dry_run, saying=saying)


LABEL_SOURCES: list[tuple[Given, str]] = [
    (lambda f: (f / "empty", "--teacher", f / "teacher.safetensors"), "No pictures in"),
    (lambda f: (f / "nowhere", "--teacher", f / "teacher.safetensors"), "nowhere does not exist"),
    (lambda f: (f / "notes/mine.txt", "--teacher", f / "teacher.safetensors"), "is no picture by its name"),
    (lambda f: (f / "pictures", "--teacher", f / "nowhere.weights"), "nowhere.weights does not exist"),
    (lambda f: (f / "pictures", "--teacher", f / "text.safetensors"), "is not a whole safetensors file"),
    (lambda f: (f / "pictures", "--teacher", f / "state.safetensors"), "is no model file of a run"),
    (lambda f: (f / "pictures", "--teacher", f / "notes"), "is no run: run.json is missing"),
    (lambda f: (f / "pictures", "--teacher", f / "begun"), "has no network yet"),
    (lambda f: (f / "pictures", "--teacher", f / "text.weights"), "needs its Darknet .cfg"),
    (lambda f: (f / "pictures", "--teacher", f / "text.weights", "--cfg", f / "darknet/tiny.cfg"), "text.weights"),
    (lambda f: (f / "pictures", "--teacher", f / "cut.weights", "--cfg", f / "darknet/tiny.cfg"), "cut.weights"),
    (lambda f: (f / "pictures", "--teacher", f / "darknet/tiny.weights", "--cfg", f / "text.weights"), "text.weights"),
    (lambda f: (f / "pictures", "--teacher", f / "darknet/tiny.weights", "--cfg", f / "nowhere.cfg"), "nowhere.cfg"),
    (
        lambda f: (f / "pictures", "--teacher", f / "darknet/tiny.weights", "--names", f / "two.names"),
        "has 2 class names, but",
    ),
    (lambda f: (f / "pictures", "--teacher", f / "darknet/tiny.weights", "--names", f / "no.names"), "no.names"),
    (lambda f: (f / "pictures", "--teacher", f / "darknet/coarse.weights"), "a stride of 8"),
]


@pytest.mark.parametrize(("given", "saying"), LABEL_SOURCES, ids=[saying for _, saying in LABEL_SOURCES])
def test_label_refuses_sources(whole: Path, given: Given, saying: str):
    refuse(whole, "label", *given(whole), "--store", whole / "new", *LABEL, saying=saying)


def test_label_refuses_a_place_that_is_taken(whole: Path):
    for place in ("notes", "notes/mine.txt", "run"):
        refuse(whole, "label", *labelling(whole), "--store", whole / place, *LABEL, saying="exists and is not an empty")


RESUMED: list[tuple[Given, str]] = [
    (lambda f: (f / "pictures", "--teacher", f / "other.safetensors"), "teacher.weights_sha256"),
    (lambda f: (f / "pictures", "--teacher", f / "stretched.safetensors"), "input.resize 'letterbox' there, 'stretch'"),
    (lambda f: (*labelling(f), "--input-size", 64), "input.height 96 there, 64 asked"),
    (lambda f: (*labelling(f), "--resize", "stretch"), "input.resize 'letterbox' there, 'stretch' asked"),
    (lambda f: (*labelling(f), "--classes", "RBC"), "teacher.classes"),
    (lambda f: (*labelling(f), "--classes", "WBC", "--classes", "RBC", "--classes", "Platelets"), "teacher.classes"),
    (lambda f: (*labelling(f), "--fm-nms", "greedy"), "fm_nms.mode 'local-max' there, 'greedy' asked"),
    (lambda f: (*labelling(f), "--fm-nms-window", 5), "fm_nms.window 3 there, 5 asked"),
    (lambda f: (*labelling(f), "--min-objectness", 0.2), "fm_nms.min_objectness 0.01 there, 0.2 asked"),
    (lambda f: (*labelling(f), "--shard-size", 2), "shard_size 3 there, 2 asked"),
    (lambda f: (*labelling(f), "--features", "conv20"), "Give the same --features"),
    (lambda f: (*labelling(f), "--batch-size", 3), "--batch-size 3: "),
    (lambda f: (*labelling(f), "--precision", "bfloat16"), "--precision bfloat16: "),
    (lambda f: (*labelling(f), "--threads", 2), "--threads 2: "),
    (lambda f: (*labelling(f), "--limit", 5), "(6 there, 5 given): 1 missing"),
    (lambda f: (f"other={f / 'pictures'}", "--teacher", f / "teacher.safetensors"), "6 missing"),
]


@pytest.mark.parametrize(("given", "saying"), RESUMED, ids=[saying for _, saying in RESUMED])
@pytest.mark.parametrize("finished", [True, False], ids=["finished", "begun"])
def test_another_request_does_not_go_on_with_a_store(whole: Path, given: Given, saying: str, finished: bool):
    record = whole / "store" / ledger_file(1)
    content = record.read_bytes()
    if not finished:
        record.unlink()
    try:
        refuse(whole, "label", "--store", whole / "store", *LABEL, *given(whole), saying=saying)
    finally:
        record.write_bytes(content)


@pytest.mark.parametrize("change", ["added", "removed", "grown"])
def test_another_list_of_pictures_does_not_go_on_with_a_store(whole: Path, tmp_path: Path, change: str):
    pictures = shutil.copytree(whole / "pictures", tmp_path / "pictures")
    store = shutil.copytree(whole / "store", tmp_path / "store")
    picture = pictures / f"{stems(2)[1]}.jpg"
    if change == "added":
        shutil.copyfile(picture, pictures / "added.jpg")
        saying = "1 new (pictures/added.jpg)"
    elif change == "removed":
        picture.unlink()
        saying = f"1 missing (pictures/{picture.name})"
    else:
        picture.write_bytes(picture.read_bytes() + b"\0")
        saying = f"1 changed (pictures/{picture.name})"
    given = ("label", pictures, "--teacher", whole / "teacher.safetensors", "--store", store, *LABEL)
    refuse(tmp_path, *given, saying=saying)


def stored(f: Path) -> tuple[Any, ...]:
    return ("--store", f / "store")


def annotated(f: Path) -> tuple[Any, ...]:
    return ("--images", f / "pictures", "--annotations", f / "annotations")


TRAIN: list[tuple[Given, str]] = [
    (lambda f: (), "there are no pictures to train on"),
    (lambda f: ("--images", f / "pictures"), "no picture is left to train on"),
    (lambda f: ("--images", f / "empty", "--annotations", f / "annotations"), "No pictures in"),
    (lambda f: ("--store", f / "nowhere"), "nowhere is not a label store"),
    (lambda f: ("--store", f / "pictures"), "is not a label store"),
    (lambda f: (*stored(f), "--store", f / "dogs"), "teachers of different classes"),
    (lambda f: (*stored(f), "--store", f / "store"), "is named twice"),
    (lambda f: (*stored(f), "--images", f / "notes"), "none of the 6 pictures of"),
    (lambda f: (*stored(f), "--input-size", 100), "--input-size 100 is not a multiple of 32"),
    (lambda f: (*stored(f), "--input-size", 0), "--input-size 0 is not a multiple of 32"),
    (lambda f: (*stored(f), "--annotations", f / "nowhere"), "nowhere does not exist"),
    (lambda f: (*stored(f), "--annotations", f / "empty"), "holds no annotations"),
    (
        lambda f: (*stored(f), "--annotations", f / "annotations", "--annotation-format", "csv"),
        "Invalid value for '--annotation-format'",
    ),
    (lambda f: (*annotated(f), "--names", f / "two.names"), "which is none of the 2 classes"),
    (lambda f: (*annotated(f), "--names", f / "no.names"), "no.names"),
    (lambda f: (*stored(f), "--names", f / "two.names"), "Leave out --names"),
    (lambda f: ("--store", f / "dogs", "--annotations", f / "annotations"), "which is none of the 2 classes"),
    (lambda f: (*stored(f), "--train-list", f / "nowhere.txt"), "nowhere.txt cannot be read"),
    (lambda f: (*stored(f), "--val-list", f / "strange.txt"), "None of the 2 listed pictures is there"),
    (
        lambda f: (*stored(f), "--train-list", f / "both.txt", "--val-list", f / "val.txt"),
        "1 pictures are on a training",
    ),
    (
        lambda f: (*stored(f), "--train-list", f / "both.txt", "--test-list", f / "val.txt"),
        "1 pictures are on a training",
    ),
    (lambda f: (*stored(f), "--distillation-weight", 0), "no picture is left to train on"),
    (
        lambda f: (*stored(f), "--no-distill-objectness", "--no-distill-box", "--no-distill-class"),
        "no picture is left to train on",
    ),
    (lambda f: (*stored(f), "--model", "yolov9"), "Invalid value for '--model'"),
    (lambda f: (*stored(f), "--width", 0), "A width factor of 0"),
    (lambda f: (*stored(f), "--width", "nan"), "A width factor of nan"),
    (lambda f: (*stored(f), "--model", "f-yolo", "--reading", "C"), "F-YOLO has no reading 'C'"),
    (lambda f: (*stored(f), "--model", "f-yolo", "--merge", "sum"), "F-YOLO cannot merge by 'sum'"),
    (lambda f: (*stored(f), "--model", "f-yolo", "--merged", "1-9"), "F-YOLO cannot merge levels 1 to 9"),
    (lambda f: (*stored(f), "--merged", "all"), "--merged all: give the first and the last"),
    (lambda f: (*stored(f), "--reading", "B"), "--reading is F-YOLO's"),
    (lambda f: (*stored(f), "--anchors", "big"), "--anchors big: give auto"),
    (lambda f: (*stored(f), "--anchors", "1,2,3"), "--anchors 1,2,3: give auto"),
    (lambda f: (*stored(f), "--anchors", "0,1"), "Anchors are positive"),
    (lambda f: (*stored(f), "--anchors", "kmeans"), "--anchors kmeans clusters annotated boxes"),
    (lambda f: (*stored(f), "--initial-weights", f / "nowhere.weights"), "nowhere.weights"),
    (lambda f: (*stored(f), "--initial-weights", f / "text.weights"), "text.weights"),
    (lambda f: (*stored(f), "--epochs", 0), "Invalid value for '--epochs'"),
    (lambda f: (*stored(f), "--batch-size", 0), "Invalid value for '--batch-size'"),
    (lambda f: (*stored(f), "--labelled-share", 2), "Invalid value for '--labelled-share'"),
    (lambda f: (*stored(f), "--labelled-share", 0.5, "--batch-size", 1), "--batch-size 2 or more"),
    (lambda f: (*stored(f), "--learning-rate", -1), "Invalid value for '--learning-rate'"),
    (lambda f: (*stored(f), "--learning-rate", "nan"), "Invalid value for '--learning-rate'"),
    (lambda f: (*stored(f), "--distillation-weight", "inf"), "--distillation-weight inf"),
    (lambda f: (*stored(f), "--ema", 1), "--ema 1"),
    (lambda f: (*stored(f), "--image-cache", "inf"), "--image-cache inf"),
    (lambda f: (*stored(f), "--device", "tpu"), "--device tpu is not"),
    (lambda f: (*stored(f), "--precision", "int8"), "--precision int8 is unknown"),
    (lambda f: (*stored(f), "--precision", "float16"), "--precision float16 can't be trained in"),
    (lambda f: (*stored(f), "--augment", "wild"), "Invalid value for '--augment'"),
    (lambda f: (*stored(f), "--resume"), "new is no run: run.json is missing"),
]


@pytest.mark.parametrize(("given", "saying"), TRAIN, ids=[f"{i} {saying}" for i, (_, saying) in enumerate(TRAIN)])
def test_train_refuses(whole: Path, given: Given, saying: str):
    refuse(whole, "train", "--run", whole / "new", *STUDENT, *given(whole), saying=saying)


def test_train_does_not_write_into_what_is_there(whole: Path):
    for place in ("run", "begun", "notes", "notes/mine.txt"):
        given = ("--run", whole / place, *STUDENT, *stored(whole))
        refuse(whole, "train", *given, saying="exists and is not empty; go on with it by --resume")


def test_train_refuses_one_content_under_two_names(whole: Path, tmp_path: Path):
    pictures = shutil.copytree(whole / "pictures", tmp_path / "pictures")
    first, last = stems(6)[0], stems(6)[5]
    shutil.copyfile(pictures / f"{first}.jpg", pictures / "copy.jpg")
    write_list(tmp_path / "val.txt", ["copy"])
    for lists in (("--val-list", tmp_path / "val.txt"), ("--test-list", tmp_path / "val.txt")):
        given = (
            "--run",
            tmp_path / "new",
            *STUDENT,
            "--images",
            pictures,
            "--annotations",
            whole / "annotations",
            *lists,
        )
        refuse(tmp_path, "train", *given, saying=f"pictures/{first}.jpg and pictures/copy.jpg are the same file")
    write_list(tmp_path / "train.txt", [last])
    assert distill("train", *given, "--train-list", tmp_path / "train.txt").status == 2  # last is not annotated
    write_list(tmp_path / "train.txt", stems(6)[1:3])
    succeed("train", *given, "--train-list", tmp_path / "train.txt", "--val-fraction", 0)


def test_train_refuses_a_store_without_a_finished_shard(whole: Path, tmp_path: Path):
    store = shutil.copytree(whole / "store", tmp_path / "store")
    for record in (store / "ledger").iterdir():
        record.unlink()
    given = ("--run", tmp_path / "new", *STUDENT, "--store", store, "--images", whole / "pictures")
    refuse(tmp_path, "train", *given, saying="has no finished shard; complete it")


def test_train_fails_on_a_damaged_store_and_names_the_shard(whole: Path, tmp_path: Path):
    store = shutil.copytree(whole / "store", tmp_path / "store")
    file = next(file for file in LabelStore.open(store).record(1).files if file.startswith("soft_labels"))
    content = bytearray((store / file).read_bytes())
    content[len(content) // 3] ^= 4
    (store / file).write_bytes(content)
    before = snapshot(tmp_path)
    outcome = distill("train", "--run", tmp_path / "new", *STUDENT, "--store", store, "--images", whole / "pictures")
    assert outcome.status == 1
    assert f"shard 1, {file}" in outcome.error
    assert snapshot(tmp_path) == before


def test_train_refuses_to_validate_where_nothing_counts(whole: Path, tmp_path: Path):
    annotations = shutil.copytree(whole / "annotations", tmp_path / "annotations")
    judged = annotations / f"{stems(4)[3]}.xml"
    text = judged.read_text()
    judged.write_text(text.replace("<difficult>0</difficult>", "<difficult>1</difficult>"))
    assert judged.read_text() != text
    given = ("--images", whole / "pictures", "--annotations", annotations, "--val-list", whole / "val.txt")
    refuse(tmp_path, "train", "--run", tmp_path / "new", *STUDENT, *given, saying="holds an object that counts")


BENCH: list[tuple[Given, str]] = [
    (lambda f: (f / "student.safetensors", "--annotations", f / "annotations"), "give their folder with --images"),
    (lambda f: (f / "student.safetensors", "--list", f / "test.txt"), "give their folder with --images"),
    (lambda f: (f / "student.safetensors", "--images", f / "empty"), "No pictures in"),
    (lambda f: (f / "nowhere", "--images", f / "pictures"), "nowhere does not exist"),
    (lambda f: (f / "text.weights", "--images", f / "pictures"), "needs its Darknet .cfg"),
    (lambda f: (f / "student.safetensors", "--images", f / "pictures", "--against", "ssd"), "no model 'ssd'"),
    (lambda f: (f / "student.safetensors", "--images", f / "pictures", "--input-size", 50), "--input-size 50"),
    (lambda f: (f / "student.safetensors", "--images", f / "pictures", "--list", f / "strange.txt"), "None of the 2"),
    (lambda f: (f / "student.safetensors", "--images", f / "pictures", "--plot", f / "x.png"), "give --annotations"),
    (
        lambda f: (f / "student.safetensors", *annotated(f), "--plot", f / "nowhere/x.png"),
        "nowhere",
    ),
    (
        lambda f: (f / "student.safetensors", *annotated(f), "--plot", f / "x.gif2"),
        "x.gif2",
    ),
    (
        lambda f: (f / "student.safetensors", *annotated(f), "--json", f / "nowhere/x.json"),
        "nowhere",
    ),
    (
        lambda f: (f / "student.safetensors", f / "dogs.safetensors", *annotated(f)),
        "measure models of different classes in commands of their own",
    ),
    (lambda f: (f / "dogs.safetensors", *annotated(f)), "which is none of the 2 classes"),
    (lambda f: (f / "student.safetensors", *annotated(f), "--passes", 0), "Invalid value for '--passes'"),
    (lambda f: (f / "student.safetensors", *annotated(f), "--precision", "int8"), "--precision int8 is unknown"),
]


@pytest.mark.parametrize(("given", "saying"), BENCH, ids=[f"{i} {saying}" for i, (_, saying) in enumerate(BENCH)])
def test_bench_refuses_before_it_measures(whole: Path, given: Given, saying: str, monkeypatch: pytest.MonkeyPatch):
    def measured(*given: Any, **named: Any) -> None:
        raise AssertionError("the measurement began, though its result could not be served")

    monkeypatch.setattr("pipeline.bench_command.measure_detectors", measured)
    refuse(whole, "bench", *given(whole), "--device", "cpu", saying=saying)


PREDICT: list[tuple[Given, str]] = [
    (lambda f: (f / "nowhere", f / "pictures", "--out", f / "new"), "nowhere does not exist"),
    (lambda f: (f / "student.safetensors", f / "empty", "--out", f / "new"), "No pictures in"),
    (lambda f: (f / "student.safetensors", f / "pictures", "--out", f / "pictures"), "holds pictures to look at"),
    (lambda f: (f / "student.safetensors", f / "pictures", "--out", f), "holds pictures to look at"),
    (lambda f: (f / "student.safetensors", f / "pictures", "--out", f / "pictures/new"), "or lies among them"),
    (lambda f: (f / "student.safetensors", f / "pictures", "--out", f / "notes/mine.txt"), "mine.txt is a file"),
    (
        lambda f: (f / "student.safetensors", f / "pictures", "--out", f / "new", "--score", 2),
        "Invalid value for '--score'",
    ),
    (lambda f: (f / "student.safetensors", f / "pictures", "--out", f / "new", "--input-size", 1), "--input-size 1"),
    (lambda f: (f / "student.safetensors", f / "pictures", "--out", f / "new", "--device", "abc"), "--device abc"),
    (lambda f: (f / "darknet/tiny.weights", f / "pictures", "--out", f / "new", "--names", f / "two.names"), "2 class"),
]


@pytest.mark.parametrize(("given", "saying"), PREDICT, ids=[f"{i} {saying}" for i, (_, saying) in enumerate(PREDICT)])
def test_predict_refuses(whole: Path, given: Given, saying: str):
    refuse(whole, "predict", *given(whole), saying=saying)


SHOW: list[tuple[Given, str]] = [
    (lambda f: (f / "nowhere", "--out", f / "x.png"), "is not a label store"),
    (lambda f: (f / "begun", "--out", f / "x.png"), "has not finished an epoch yet"),
    (lambda f: (f / "store", "--out", f / "x.bmp"), "x.bmp would be a picture of unknown format"),
    (lambda f: (f / "store", "--out", f / "nowhere/x.png"), "nowhere"),
    (lambda f: (f / "run", "--out", f / "x.bmp"), "x.bmp"),
    (lambda f: (f / "run", "--out", f / "nowhere/x.png"), "nowhere"),
    (lambda f: (f / "store", "--out", f / "x.png", "--key", "pictures/none.jpg"), "is not in"),
    (lambda f: (f / "store", "--out", f / "x.png", "--teacher", f / "other.safetensors"), "is not the teacher of"),
    (lambda f: (f / "store", "--out", f / "x.png", "--teacher", f / "none.weights"), "does not exist"),
    (lambda f: (f / "store", "--out", f / "x.png", "--count", 0), "Invalid value for '--count'"),
    (lambda f: (f / "store", "--out", f / "x.png", "--images", f / "nowhere"), "nowhere does not exist"),
]


@pytest.mark.parametrize(("given", "saying"), SHOW, ids=[f"{i} {saying}" for i, (_, saying) in enumerate(SHOW)])
def test_show_refuses(whole: Path, given: Given, saying: str):
    refuse(whole, "show", *given(whole), saying=saying)


def test_a_store_whose_folder_of_pictures_is_not_known_asks_for_it(whole: Path, tmp_path: Path):
    store = shutil.copytree(whole / "store", tmp_path / "store")
    refuse(tmp_path, "show", store, "--out", tmp_path / "x.png", saying="give their folder with --images")
    refuse(tmp_path, "train", "--run", tmp_path / "r", "--store", store, saying="give their folder with --images")
    (tmp_path / "store.work").mkdir()
    (tmp_path / "store.work/roots.json").write_text("{")
    refuse(tmp_path, "show", store, "--out", tmp_path / "x.png", saying="roots.json is damaged")


def test_annotated_pictures_that_are_absent_are_counted_and_no_failure(whole: Path, tmp_path: Path):
    annotations = shutil.copytree(whole / "annotations", tmp_path / "annotations")
    shutil.copyfile(annotations / f"{stems(1)[0]}.xml", annotations / "gone.xml")
    given = ("--images", whole / "pictures", "--annotations", annotations, "--val-fraction", 0)
    outcome = succeed("train", "--run", tmp_path / "run", *STUDENT, *given, "--json")
    assert "1 annotated pictures are absent: gone.xml" in json.loads(outcome.stdout)["notes"]
    outcome = succeed("train", "--run", tmp_path / "other", *STUDENT, *given)
    assert "1 annotated pictures are absent: gone.xml" in outcome.stdout


def test_the_fixtures_commands_are_right_but_for_what_is_refused(whole: Path, tmp_path: Path):
    """Else a refusal above could be about something else."""
    succeed("label", *labelling(whole), "--store", tmp_path / "store", *LABEL)
    succeed("train", "--run", tmp_path / "run", *STUDENT, *stored(whole), "--annotations", whole / "annotations")
    succeed("show", whole / "store", "--out", tmp_path / "x.png")
    assert len(RunFolder(tmp_path / "run").metrics()) == 1
    labels = [LabelStore.open(path).read_rows("soft_labels", 0, 3) for path in (tmp_path / "store", whole / "store")]
    np.testing.assert_array_equal(*labels)
