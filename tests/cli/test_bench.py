"""`distill bench`: figures that are the models' own, and a table and JSON that say the same."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from data.annotations import read_annotations
from data.images import read_picture
from pipeline import bench_command
from stages.bench.detect import Predictor
from stages.bench.speed import Schedule
from stages.bench.voc_ap import voc_average_precision
from stages.networks.model import load_detector
from tests.command_line import succeed
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
    write_student,
    write_teacher,
)

COUNT = 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    copy_pictures(folder / "pictures", COUNT + 1)
    copy_annotations(folder / "annotations", stems(COUNT))
    write_list(folder / "test.txt", [*stems(3), "nobody"])
    write_teacher(folder / "teacher.safetensors")
    write_student(folder / "student.safetensors")
    return folder


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command at the shortest schedule: what is tested here is not the timing."""
    monkeypatch.setattr(bench_command, "Schedule", lambda passes: Schedule(passes, 1, 3, 0.0, 0.0))


def bench(folder: Path, *arguments: Any, json_file: Path) -> tuple[dict[str, Any], str]:
    """(JSON, table) of a bench on the CPU."""
    flags = ("--device", "cpu", "--precision", "float32", "--passes", 2, "--json", json_file)
    outcome = succeed("bench", *arguments, *flags)
    result = json.loads(json_file.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert isinstance(result, dict)
    return result, outcome.stdout


def test_accuracy_is_that_of_the_models_detections(folder: Path, tmp_path: Path):
    models = (folder / "student.safetensors", folder / "teacher.safetensors")
    given = (*models, "--images", folder / "pictures", "--annotations", folder / "annotations")
    result, table = bench(folder, *given, json_file=tmp_path / "bench.json")
    assert (result["pictures"], result["annotated"], result["absent"]) == (COUNT + 1, COUNT, [])
    assert [model["name"] for model in result["models"]] == ["student", "teacher"]
    keys = [f"pictures/{name}.jpg" for name in stems(COUNT)]
    annotations = read_annotations(folder / "annotations", None, CLASSES).bind(keys)
    for path, model in zip(models, result["models"], strict=True):
        predictor = Predictor(
            load_detector(path), height=SIDE, width=SIDE, resize="letterbox", device=torch.device("cpu")
        )
        found, truths = {}, {}
        for key in keys:
            picture = read_picture(folder / key).pixels
            (found[key],) = predictor.detect([picture])
            truths[key] = annotations.truth(key, *picture.shape[:2])
        expected = voc_average_precision(found, truths, CLASSES)
        assert expected.map_11_point is not None
        assert model["voc"]["map_11_point"] == pytest.approx(expected.map_11_point, abs=1e-3)
        assert model["voc"]["map_all_point"] == pytest.approx(expected.map_all_point, abs=1e-3)
        assert [item["name"] for item in model["voc"]["classes"]] == list(CLASSES)
        assert sum(item["truths"] for item in model["voc"]["classes"]) == sum(len(truth) for truth in truths.values())
        assert 0 <= model["coco"]["ap"] <= 1
        assert f"{100 * expected.map_11_point:.1f}" in next(
            line for line in table.splitlines() if model["name"] in line
        )
    assert f"on {COUNT} annotated pictures" in table


def test_without_pictures_noise_is_timed_and_said_so(folder: Path, tmp_path: Path):
    result, table = bench(folder, folder / "student.safetensors", json_file=tmp_path / "bench.json")
    assert (result["frames"], result["pictures"], result["annotated"]) == ("noise", 0, 0)
    assert result["models"][0]["speed"]["complete"]["fps"] > 0
    assert result["models"][0]["voc"] is None
    assert "noise of 640×480" in table


def test_speed_and_cost_are_said_of_every_model(folder: Path, tmp_path: Path):
    given = (folder / "student.safetensors", "--images", folder / "pictures", "--against", "tiny-yolo,f-yolo")
    result, table = bench(folder, *given, "--input-size", 64, json_file=tmp_path / "bench.json")
    assert result["annotated"] == 0
    assert [(model["name"], model["trained"]) for model in result["models"]] == [
        ("student", True),
        ("tiny-yolo (random weights)", False),
        ("f-yolo (random weights)", False),
    ]
    for model in result["models"]:
        assert model["input"] == [64, 64]
        assert model["voc"] is None
        for name in ("complete", "without_postprocessing"):
            speed = model["speed"][name]
            assert 0 < speed["p05_ms"] <= speed["median_ms"] <= speed["p95_ms"]
            assert math.isclose(speed["fps"], 1000 / speed["median_ms"], rel_tol=1e-6)
            assert len(speed["pass_medians_ms"]) == 2
        assert model["cost"]["gflop"] > 0
    student = load_detector(folder / "student.safetensors")
    assert result["models"][0]["cost"]["parameters"] == sum(p.numel() for p in student.parameters())
    assert result["models"][1]["cost"]["parameters"] > 10e6
    assert result["machine_line"] in table
    assert "float32 on cpu" in table
    assert "Accuracy" not in table


def test_random_weights_have_no_accuracy(folder: Path, tmp_path: Path):
    given = (folder / "student.safetensors", "--images", folder / "pictures", "--annotations", folder / "annotations")
    result, table = bench(folder, *given, "--against", "tiny-yolo", "--input-size", 64, json_file=tmp_path / "b.json")
    trained, random = result["models"]
    assert trained["voc"] is not None
    assert (random["voc"], random["coco"]) == (None, None)
    assert next(line for line in table.splitlines() if "random weights" in line).count("–") == 3


def test_a_list_chooses_and_what_it_names_in_vain_is_said(folder: Path, tmp_path: Path):
    given = (folder / "student.safetensors", "--images", folder / "pictures", "--annotations", folder / "annotations")
    result, table = bench(folder, *given, "--list", folder / "test.txt", json_file=tmp_path / "bench.json")
    assert (result["pictures"], result["annotated"], result["absent"]) == (3, 3, ["nobody"])
    assert "1 listed pictures are absent, the first is nobody" in table


def test_a_picture_that_cannot_be_decoded_is_counted(folder: Path, tmp_path: Path):
    shutil.copytree(folder / "pictures", tmp_path / "pictures")
    damage(tmp_path / "pictures" / f"{stems(1)[0]}.jpg")
    given = (folder / "student.safetensors", "--images", tmp_path / "pictures", "--annotations", folder / "annotations")
    result, table = bench(folder, *given, json_file=tmp_path / "bench.json")
    assert result["models"][0]["rejected"] == [[f"pictures/{stems(1)[0]}.jpg", "damaged or truncated"]]
    assert "student: 1 pictures could not be decoded" in table


def test_models_of_the_same_name_are_told_apart(folder: Path, tmp_path: Path):
    shutil.copyfile(folder / "teacher.safetensors", tmp_path / "student.safetensors")
    models = (folder / "student.safetensors", tmp_path / "student.safetensors")
    result, _ = bench(folder, *models, "--images", folder / "pictures", json_file=tmp_path / "bench.json")
    names = [model["name"] for model in result["models"]]
    assert len(set(names)) == 2
    assert result["models"][0]["cost"]["parameters"] != result["models"][1]["cost"]["parameters"]


def test_darknet_files_are_measured_with_what_lies_beside_them(folder: Path, tmp_path: Path):
    weights = write_darknet(tmp_path / "darknet")
    weights.with_suffix(".names").write_text("\n".join(CLASSES) + "\n")
    given = (weights, "--images", folder / "pictures", "--annotations", folder / "annotations")
    result, _ = bench(folder, *given, json_file=tmp_path / "bench.json")
    (model,) = result["models"]
    assert (model["name"], model["input"]) == ("tiny", [64, 96])
    assert [item["name"] for item in model["voc"]["classes"]] == list(CLASSES)


def test_a_plot_is_drawn_and_nothing_else_is_written(folder: Path, tmp_path: Path):
    before = snapshot(folder)
    given = (folder / "student.safetensors", "--images", folder / "pictures", "--annotations", folder / "annotations")
    bench(folder, *given, "--plot", tmp_path / "plot.png", json_file=tmp_path / "bench.json")
    with Image.open(tmp_path / "plot.png") as picture:
        picture.load()
        assert min(picture.size) > 200
    assert sorted(snapshot(tmp_path)) == ["bench.json", "plot.png"]
    assert snapshot(folder) == before
