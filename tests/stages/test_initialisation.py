"""Where a fresh detector starts."""

import pytest
import torch

from stages.networks.f_yolo import FYoloConfig
from stages.networks.model import build_detector
from stages.networks.region import activate
from stages.networks.spec import OWN_MODELS, ModelConfig, own_spec
from stages.networks.tiny_yolo import TinyYoloConfig
from stages.networks.yolov2 import YoloV2Config

NARROW: dict[str, ModelConfig] = {
    "f-yolo": FYoloConfig(width=0.25),
    "tiny-yolo": TinyYoloConfig(0.25),
    "yolov2": YoloV2Config(0.25),
}


@pytest.mark.parametrize("model", OWN_MODELS)
def test_a_fresh_head_predicts_anchors_at_centres_and_little_objectness(model: str) -> None:
    classes = ("a", "b", "c")
    detector = build_detector(own_spec(model, classes, NARROW[model]), torch.Generator().manual_seed(0)).eval()
    with torch.no_grad():
        raw = detector(torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)))
    entries = activate(raw, len(detector.anchors), len(classes))
    assert entries[:, :, 0:2].sub(0.5).abs().max() < 0.25
    assert entries[:, :, 2:4].abs().max() < 1.0
    assert 0.03 < float(entries[:, :, 4].min()) <= float(entries[:, :, 4].max()) < 0.3
    assert float(entries[:, :, 5:].max()) < 0.6
