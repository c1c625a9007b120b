"""`distill predict`: the boxes in JSON and on the pictures are the model's, in the picture's own pixels."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from data.images import read_picture
from pipeline import predict_command
from stages.bench.detect import Predictor
from stages.networks.model import load_detector
from tests.command_line import distill, succeed
from tests.pictures import CLASSES, SIDE, copy_pictures, damage, snapshot, write_darknet, write_teacher

COUNT = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """pictures/ with a subfolder, a PNG of a JPEG's stem, a damaged one, and a model."""
    folder = tmp_path_factory.mktemp("predict")
    first, second, third = copy_pictures(folder / "pictures", COUNT)
    (folder / "pictures/deep").mkdir()
    third.rename(folder / "pictures/deep" / third.name)
    Image.fromarray(read_picture(first).pixels[:200, :320]).save(first.with_suffix(".png"))
    shutil.copyfile(second, folder / "pictures/broken.jpg")
    damage(folder / "pictures/broken.jpg")
    write_teacher(folder / "model.safetensors")
    return folder


def predict(folder: Path, out: Path, *more: Any) -> dict[str, Any]:
    flags = ("--device", "cpu", "--json", "--out", out)
    result = json.loads(succeed("predict", folder / "model.safetensors", folder / "pictures", *flags, *more).stdout)
    assert isinstance(result, dict)
    return result


def test_the_boxes_are_the_models(folder: Path, tmp_path: Path):
    result = predict(folder, tmp_path / "out", "--score", 0.1)
    assert json.loads((tmp_path / "out/detections.json").read_text()) == result
    model = load_detector(folder / "model.safetensors")
    predictor = Predictor(model, height=SIDE, width=SIDE, resize="letterbox", device=torch.device("cpu"))
    assert len(result["pictures"]) == COUNT + 1
    boxes = 0
    for row in result["pictures"]:
        picture = read_picture(folder / row["key"]).pixels
        (expected,) = predictor.detect([picture], score_threshold=0.1)
        assert len(row["detections"]) == len(expected)
        boxes += len(expected)
        for found, box, score, label in zip(
            row["detections"], expected.boxes, expected.scores, expected.labels, strict=True
        ):
            assert found["class"] == CLASSES[label]
            assert found["score"] == pytest.approx(float(score), abs=1e-3)
            assert found["score"] >= 0.1
            np.testing.assert_allclose(found["box"], box, atol=0.1)
            left, top, right, bottom = found["box"]
            assert 0 <= left <= right <= picture.shape[1]
            assert 0 <= top <= bottom <= picture.shape[0]
    assert boxes > 0


def test_every_picture_is_drawn_once_and_in_full(folder: Path, tmp_path: Path):
    result = predict(folder, tmp_path / "out", "--score", 0.1)
    drawn = [name for name, content in snapshot(tmp_path / "out").items() if content is not None]
    assert sorted(drawn) == sorted(["detections.json", *(f"{row['key']}.png" for row in result["pictures"])])
    for row in result["pictures"]:
        picture = read_picture(folder / row["key"]).pixels
        copy = read_picture(tmp_path / "out" / f"{row['key']}.png").pixels
        factor = copy.shape[0] // picture.shape[0]  # small pictures are enlarged, so that names can be read
        assert copy.shape == (factor * picture.shape[0], factor * picture.shape[1], 3)
        assert (copy[::factor, ::factor] != picture).any() == bool(row["detections"])


def test_what_is_drawn_is_what_was_found(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    drawn, real = [], predict_command.draw_boxes

    def spy(picture: Any, boxes: Any, labels: Any, scores: Any, classes: Any) -> Any:
        found = zip(boxes, labels, scores, strict=True)
        drawn.append([(classes[label], [float(edge) for edge in box], float(score)) for box, label, score in found])
        return real(picture, boxes, labels, scores, classes)

    monkeypatch.setattr(predict_command, "draw_boxes", spy)
    result = predict(folder, tmp_path / "out", "--score", 0.1)
    for row, found in zip(result["pictures"], drawn, strict=True):
        assert [detection["class"] for detection in row["detections"]] == [name for name, _, _ in found]
        for detection, (_, box, score) in zip(row["detections"], found, strict=True):
            assert detection["box"] == pytest.approx(box, abs=0.01)
            assert detection["score"] == pytest.approx(score, abs=1e-4)


def test_a_higher_score_leaves_boxes_out(folder: Path, tmp_path: Path):
    def scores(threshold: float) -> list[float]:
        result = predict(folder, tmp_path / str(threshold), "--score", threshold)
        return [found["score"] for row in result["pictures"] for found in row["detections"]]

    low = scores(0.1)
    middle = sorted(low)[len(low) // 2]
    assert 0 < len(scores(middle)) < len(low)
    assert scores(1) == []


def test_what_cannot_be_decoded_is_said_and_is_no_failure(folder: Path, tmp_path: Path):
    result = predict(folder, tmp_path / "out")
    assert result["rejected"] == [{"key": "pictures/broken.jpg", "reason": "damaged or truncated"}]
    flags = ("--device", "cpu", "--out", tmp_path / "other")
    outcome = distill("predict", folder / "model.safetensors", folder / "pictures/broken.jpg", *flags)
    assert outcome.status == 1
    assert "none of 1 pictures could be decoded" in outcome.error


def test_nothing_is_written_beside_the_pictures(folder: Path, tmp_path: Path):
    before = snapshot(folder)
    predict(folder, tmp_path / "out")
    assert snapshot(folder) == before


def test_darknet_files_predict_at_their_own_input(folder: Path, tmp_path: Path):
    weights = write_darknet(tmp_path / "darknet")
    flags = ("--out", tmp_path / "out", "--device", "cpu", "--score", 0, "--json")
    given = ("predict", weights, folder / "pictures", "--cfg", weights.with_suffix(".cfg"))
    result = json.loads(succeed(*given, *flags).stdout)
    assert {found["class"] for row in result["pictures"] for found in row["detections"]} <= {"0", "1", "2"}
    assert sum(len(row["detections"]) for row in result["pictures"]) > 0
