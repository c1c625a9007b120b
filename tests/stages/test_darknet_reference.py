"""Against what the original Darknet library computed (see the README beside the reference files)."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from data.boxes import xyxy_to_cxcywh
from data.views import letterbox_view
from stages.networks.from_cfg import load_darknet
from stages.networks.fuse import fuse
from stages.networks.postprocess import detections
from stages.networks.region import activate

DARKNET = Path(__file__).parents[2].parent / "shared" / "darknet"
pytestmark = pytest.mark.skipif(
    not DARKNET.is_dir(), reason="the Darknet reference files are not beside this checkout (../shared/darknet)"
)
NETWORKS = {
    "yolov2-voc-thin8": ("yolov2-voc-thin8.cfg", None),
    "yolov2-voc-thin8-v01": ("yolov2-voc-thin8.cfg", None),
    "yolov2-tiny-voc": ("yolov2-tiny-voc.cfg", 2),
    "yolov2-voc": ("yolov2-voc.cfg", 1),
}


def weights_of(network: str, folder: Path) -> Path:
    cfg, seed = NETWORKS[network]
    if seed is None:
        return DARKNET / "weights" / f"{network}.weights"
    path = folder / f"{network}.weights"
    subprocess.run(
        [sys.executable, DARKNET / "make_seeded_weights.py", DARKNET / "cfg" / cfg, path, str(seed)],
        check=True,
        env={"PYTHONWARNINGS": "ignore"},
    )
    sums = dict(reversed(line.split()[:2]) for line in (DARKNET / "SHA256SUMS").read_text().splitlines())
    assert hashlib.sha256(path.read_bytes()).hexdigest() == sums[path.name]
    return path


@pytest.mark.parametrize("network", NETWORKS)
def test_output_and_detections_are_darknets(network: str, tmp_path: Path) -> None:
    weights = weights_of(network, tmp_path)
    model = load_darknet(DARKNET / "cfg" / NETWORKS[network][0], weights, DARKNET / "names" / "voc.names")
    weights_digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    if tmp_path in weights.parents:
        weights.unlink()
    assert (model.input_height, model.input_width) == (416, 416)
    assert model.weights_sha256 == weights_digest
    pictures = np.load(DARKNET / "reference" / "dog_letterbox_416.npz")["input"][None]
    expected = np.load(DARKNET / "reference" / f"{network}.dog.npz")
    with torch.inference_mode():
        raw = model.detector(torch.from_numpy(pictures))
        fused = fuse(model.detector)(torch.from_numpy(pictures))
    entries = activate(raw, 5, 20)
    assert np.abs(raw[0].numpy() - expected["pre_region"]).max() < 1e-3
    assert np.abs(entries[0].reshape(125, 13, 13).numpy() - expected["region"]).max() < 1e-4
    assert (fused - raw).abs().max() < 1e-4

    report = json.loads((DARKNET / "reference" / f"{network}.dog.detections.json").read_text())
    height, width = report["height"], report["width"]
    view = letterbox_view(height, width, 416, 416)
    ours = detections(entries[0], model.detector.anchors, view, height, width, score_threshold=0.1)
    boxes = xyxy_to_cxcywh(ours.boxes) / [width, height, width, height]
    left = list(range(len(ours)))
    for theirs in report["detections"]:
        box = np.array([theirs[key] for key in ("cx", "cy", "w", "h")])
        errors = {
            i: np.abs(boxes[i] - box).max() / max(1, np.abs(box).max())
            for i in left
            if model.detector.classes[ours.labels[i]] == theirs["class"] and abs(ours.scores[i] - theirs["prob"]) < 1e-4
        }
        assert errors, f"nothing of ours is {theirs}"
        best = min(errors, key=errors.__getitem__)
        edge_rounding = 2 * float(np.finfo(np.float32).eps) * max(1.0, *box[2:])  # of our float32 corners
        np.testing.assert_allclose(boxes[best], box, rtol=1e-3, atol=edge_rounding)
        left.remove(best)
    assert not left
