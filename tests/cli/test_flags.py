"""Every flag reaches the field it names, and no other: a flag that does nothing would go unnoticed for long."""

import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from cli.output import parse_duration
from data.errors import RequestError
from data.store.schema import FmNmsAttributes
from pipeline import bench_command, label_command, predict_command, show_command, train_command
from pipeline.bench_command import BenchRequest
from pipeline.label_plan import LabelRequest
from pipeline.train_request import TrainRequest
from pipeline.worker import WorkerOptions
from tests.command_line import succeed

TRAIN: list[tuple[tuple[Any, ...], str, Any]] = [
    (("--store", "a", "--store", "b"), "stores", ("a", "b")),
    (("--images", "a", "--images", "x=b"), "images", ("a", "x=b")),
    (("--annotations", "a"), "annotations", "a"),
    (("--annotation-format", "coco"), "annotation_format", "coco"),
    (("--drop-other-classes",), "drop_other_classes", True),
    (("--names", "a.names"), "names", "a.names"),
    (("--train-list", "a", "--train-list", "b"), "train_lists", ("a", "b")),
    (("--val-list", "a"), "val_lists", ("a",)),
    (("--test-list", "a"), "test_lists", ("a",)),
    (("--val-fraction", 0.2), "val_fraction", 0.2),
    (("--model", "yolov2"), "model", "yolov2"),
    (("--width", 0.25), "width", 0.25),
    (("--reading", "B"), "reading", "B"),
    (("--merge", "max-pool"), "merge", "max-pool"),
    (("--merged", "4-6"), "merged", (4, 6)),
    (("--no-extra-1x1",), "extra_1x1", False),
    (("--anchors", "1,2 3,4"), "anchors", "1,2 3,4"),
    (("--initial-weights", "a.weights"), "initial_weights", "a.weights"),
    (("--initial-cfg", "a.cfg"), "initial_cfg", "a.cfg"),
    (("--epochs", 7), "epochs", 7),
    (("--batch-size", 7), "batch_size", 7),
    (("--input-size", 64), "input_size", 64),
    (("--multi-scale",), "multi_scale", True),
    (("--resize", "stretch"), "resize", "stretch"),
    (("--augment", "photometric"), "augment", "photometric"),
    (("--no-flip",), "flip", False),
    (("--labelled-share", 0.5), "labelled_share", 0.5),
    (("--learning-rate", 0.5), "learning_rate", 0.5),
    (("--momentum", 0.5), "momentum", 0.5),
    (("--weight-decay", 0.5), "weight_decay", 0.5),
    (("--clip-norm", 0.5), "clip_norm", 0.5),
    (("--ema", 0.5), "ema", 0.5),
    (("--distillation-weight", 0.5), "distillation_weight", 0.5),
    (("--no-objectness-scaling",), "objectness_scaling", False),
    (("--no-distill-objectness",), "distill_objectness", False),
    (("--no-distill-box",), "distill_box", False),
    (("--no-distill-class",), "distill_class", False),
    (("--no-sync-batch-norm",), "sync_batch_norm", False),
    (("--validate-every", 7), "validate_every", 7),
    (("--seed", 7), "seed", 7),
    (("--device", "cpu"), "device", "cpu"),
    (("--precision", "bfloat16"), "precision", "bfloat16"),
    (("--workers", 7), "workers", 7),
    (("--image-cache", 0.5), "image_cache_gb", 0.5),
]


def caught(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, result: Any) -> list[tuple[Any, dict[str, Any]]]:
    """What the command line hands to the pipeline."""
    calls: list[tuple[Any, dict[str, Any]]] = []

    def catch(*given: Any, **named: Any) -> Any:
        calls.append((given, named))
        return result

    monkeypatch.setattr(module, name, catch)
    return calls


@pytest.mark.parametrize(("flags", "field", "value"), TRAIN, ids=[field for _, field, _ in TRAIN])
def test_train(monkeypatch: pytest.MonkeyPatch, flags: tuple[Any, ...], field: str, value: Any):
    calls = caught(monkeypatch, train_command, "run_training", {"text": "said"})
    assert succeed("train", "--run", "a/run").stdout == "said\n"
    succeed("train", "--run", "b", "--resume", *flags)
    assert calls[0] == ((TrainRequest(), Path("a/run")), {"resume": False})
    assert calls[1] == ((replace(TrainRequest(), **{field: value}), Path("b")), {"resume": True})


def test_weights_come_with_their_stores(monkeypatch: pytest.MonkeyPatch):
    calls = caught(monkeypatch, train_command, "run_training", {"text": "said"})
    succeed("train", "--run", "r", "--store", "a", "--store", "b", "--store-weight", 0.7, "--store-weight", 2)
    assert calls[0][0][0] == TrainRequest(stores=("a", "b"), store_weights=(0.7, 2.0))


def test_every_field_of_a_training_has_a_flag():
    assert {field for _, field, _ in TRAIN} | {"store_weights"} == {field.name for field in fields(TrainRequest)}


LABEL: list[tuple[tuple[Any, ...], str, Any]] = [
    (("--cfg", "a.cfg"), "cfg", Path("a.cfg")),
    (("--names", "a.names"), "names", Path("a.names")),
    (("--features", "x", "--features", "y"), "features", ("x", "y")),
    (("--fm-nms", "greedy"), "fm_nms", FmNmsAttributes("greedy", 3, 0.01)),
    (("--fm-nms-window", 5), "fm_nms", FmNmsAttributes("local-max", 5, 0.01)),
    (("--min-objectness", 0), "fm_nms", FmNmsAttributes("local-max", 3, 0.0)),
    (("--classes", "x", "--classes", "y"), "classes", ("x", "y")),
    (("--input-size", 64), "input_size", 64),
    (("--resize", "stretch"), "resize", "stretch"),
    (("--shard-size", 7), "shard_size", 7),
    (("--device", "cpu"), "device", "cpu"),
    (("--precision", "bfloat16"), "precision", "bfloat16"),
    (("--batch-size", 7), "batch_size", 7),
    (("--batch-size", "auto"), "batch_size", None),
    (("--threads", 7), "threads", 7),
    (("--limit", 7), "limit", 7),
    (("--deduplicate",), "deduplicate", True),
    (("--add",), "add", True),
]


@pytest.mark.parametrize(("flags", "field", "value"), LABEL, ids=[" ".join(map(str, flags)) for flags, _, _ in LABEL])
def test_label(monkeypatch: pytest.MonkeyPatch, flags: tuple[Any, ...], field: str, value: Any):
    calls = caught(monkeypatch, label_command, "run_label", {"text": "said"})
    given = ("label", "a", "x=b", "--teacher", "t.weights", "--store", "s")
    plain = LabelRequest(("a", "x=b"), Path("s"), Path("t.weights"))
    assert succeed(*given).stdout == "said\n"
    succeed(*given, "--dry-run", *flags)
    assert calls[0] == ((plain, WorkerOptions()), {"dry_run": False})
    assert calls[1] == ((replace(plain, **{field: value}), WorkerOptions()), {"dry_run": True})


@pytest.mark.parametrize(
    ("flags", "field", "value"),
    [
        (("--worker",), "among_many", True),
        (("--time-limit", "90m"), "time_limit_s", 5400.0),
        (("--claim-expiry", "30s"), "claim_expiry_s", 30.0),
    ],
)
def test_how_to_take_part_in_a_labelling(
    monkeypatch: pytest.MonkeyPatch, flags: tuple[Any, ...], field: str, value: Any
):
    calls = caught(monkeypatch, label_command, "run_label", {"text": "said"})
    succeed("label", "a", "--teacher", "t.weights", "--store", "s", *flags)
    assert calls[0][0][1] == replace(WorkerOptions(), **{field: value})


@pytest.mark.parametrize(
    ("text", "seconds"),
    {
        "90": 90,
        "30s": 30,
        "90m": 5400,
        "1.5h": 5400,
        "2d": 172800,
        "10:00": 600,
        "1:30:00": 5400,
        "2-12": 216000,
        "1-00:30": 88200,
        "1-00:00:30": 86430,
    }.items(),
)
def test_durations_are_given_in_units_or_as_slurm_does(text: str, seconds: float):
    assert parse_duration("--time-limit", text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "3x", "-5m", "0", "1:2:3:4", "1-2-3"])
def test_what_is_no_duration_is_refused(text: str):
    with pytest.raises(RequestError, match=re.escape(f"--time-limit {text}")):
        parse_duration("--time-limit", text)


def test_every_field_of_a_labelling_has_a_flag():
    given = {field for _, field, _ in LABEL} | {"images", "store", "teacher"}
    assert given == {field.name for field in fields(LabelRequest)}


BENCH: list[tuple[tuple[Any, ...], str, Any]] = [
    (("--images", "a", "--images", "b"), "images", ("a", "b")),
    (("--annotations", "a"), "annotations", Path("a")),
    (("--list", "a", "--list", "b"), "lists", ("a", "b")),
    (("--against", "tiny-yolo,yolov2"), "against", ("tiny-yolo", "yolov2")),
    (("--input-size", 64), "input_size", 64),
    (("--device", "cpu"), "device", "cpu"),
    (("--precision", "bfloat16"), "precision", "bfloat16"),
    (("--passes", 7), "passes", 7),
]


@pytest.mark.parametrize(("flags", "field", "value"), BENCH, ids=[field for _, field, _ in BENCH])
def test_bench(monkeypatch: pytest.MonkeyPatch, flags: tuple[Any, ...], field: str, value: Any):
    calls = caught(monkeypatch, bench_command, "run_bench", {"text": "said"})
    plain = BenchRequest((Path("m"), Path("n")))
    assert succeed("bench", "m", "n").stdout == "said\n"
    succeed("bench", "m", "n", "--json", "j", "--plot", "p", *flags)
    assert calls[0] == ((plain,), {"json_file": None, "plot": None})
    assert calls[1] == ((replace(plain, **{field: value}),), {"json_file": Path("j"), "plot": Path("p")})


def test_every_field_of_a_bench_has_a_flag():
    assert {field for _, field, _ in BENCH} | {"models"} == {field.name for field in fields(BenchRequest)}


def test_predict(monkeypatch: pytest.MonkeyPatch):
    calls = caught(monkeypatch, predict_command, "run_predict", {"text": "said"})
    plain = {"cfg": None, "names": None, "score": 0.3, "input_size": None, "device": "auto", "precision": "float32"}
    succeed("predict", "m", "a", "b", "--out", "o")
    assert calls.pop() == ((Path("m"), ["a", "b"], Path("o")), plain)
    flags: dict[str, Any] = {"cfg": Path("c"), "names": Path("n"), "score": 0.5, "input_size": 64, "device": "cpu"}
    for name, value in {**flags, "precision": "bfloat16"}.items():
        succeed("predict", "m", "a", "--out", "o", f"--{name.replace('_', '-')}", value)
        assert calls.pop() == ((Path("m"), ["a"], Path("o")), {**plain, name: value})


def test_show(monkeypatch: pytest.MonkeyPatch):
    calls = caught(monkeypatch, show_command, "run_show", "said")
    plain = {
        "images": (),
        "keys": (),
        "count": 4,
        "teacher": None,
        "cfg": None,
        "names": None,
        "min_objectness": 0.1,
    }
    assert succeed("show", "s", "--out", "o").stdout == "said\n"
    assert calls.pop() == ((Path("s"), Path("o")), plain)
    flags: list[tuple[tuple[Any, ...], str, Any]] = [
        (("--images", "a", "--images", "b"), "images", ("a", "b")),
        (("--key", "a", "--key", "b"), "keys", ("a", "b")),
        (("--count", 7), "count", 7),
        (("--teacher", "t"), "teacher", Path("t")),
        (("--cfg", "c"), "cfg", Path("c")),
        (("--names", "n"), "names", Path("n")),
        (("--min-objectness", 0.5), "min_objectness", 0.5),
    ]
    for given, name, value in flags:
        succeed("show", "s", "--out", "o", *given)
        assert calls.pop() == ((Path("s"), Path("o")), {**plain, name: value})
