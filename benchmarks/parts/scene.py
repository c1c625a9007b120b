"""What the parts measure on: real photographs, networks of full size with random weights, and how long to measure.

Weights do not change the time of a convolution, but they decide how many slots a detector fires in, and with that what
FM-NMS, soft labels and post-processing have to do. So the random heads are calibrated to fire like a trained one.
"""

from dataclasses import dataclass
from math import log
from pathlib import Path

import torch

from data.images import read_picture
from data.pictures import Picture, find_pictures
from data.views import render, resize_view
from stages.networks.model import build_detector
from stages.networks.network import Detector
from stages.networks.region import BOX_ENTRIES
from stages.networks.spec import ModelConfig, own_spec
from stages.networks.yolov2 import YoloV2Config

CLASSES = ("RBC", "WBC", "Platelets", *(f"class {number}" for number in range(4, 21)))
"""Twenty, as in Pascal VOC; the photographs' own three come first, so that their annotations can be trained on."""

TAP = "conv20"
"""YOLOv2's layer before the passthrough joins: 1024 channels at 13×13."""

FIRING_SLOTS = 20
FIRING_OBJECTNESS = 0.1
LOGIT_DEVIATION = 4.0


@dataclass(frozen=True, slots=True)
class Scene:
    """data: the folder with bccd/. work: for stores and runs, on the disk that is measured. width: of every network.

    label_pictures: per turn of the label stage. train_batches: per turn of the training.
    """

    data: Path
    work: Path
    device: torch.device
    input_size: int
    width: float
    rounds: int
    label_pictures: int
    label_batch: int
    train_batches: int
    train_batch: int
    threads: int

    @property
    def photographs(self) -> Path:
        return self.data / "bccd" / "JPEGImages"

    @property
    def list_folder(self) -> Path:
        return self.data / "bccd" / "ImageSets" / "Main"

    @property
    def annotations(self) -> Path:
        return self.data / "bccd" / "Annotations"


def pictures(scene: Scene, count: int) -> list[Picture]:
    """So many pictures with keys of their own: the photographs, again and again under other keys."""
    found = find_pictures([str(scene.photographs)])
    copies = [
        Picture(picture.key if not copy else f"{picture.key}#{copy:04d}", picture.path)
        for copy in range(-(-count // len(found)))
        for picture in found
    ]
    return sorted(copies[:count], key=lambda picture: picture.key)


def decoded(scene: Scene, count: int) -> torch.Tensor:
    """The first photographs as the teacher sees them: float32 [count, 3, H, W] on the CPU."""
    inputs = []
    for picture in pictures(scene, count):
        pixels = read_picture(picture.path).pixels
        view = resize_view("letterbox", *pixels.shape[:2], scene.input_size, scene.input_size)
        inputs.append(torch.from_numpy(render(pixels, view)))
    return torch.stack(inputs)


def random_detector(scene: Scene, model: str, config: ModelConfig, seed: int = 0) -> Detector:
    """A detector in evaluation mode that fires in some twenty of its 845 slots, as a trained one does at 416."""
    teacher_anchors = own_spec("yolov2", CLASSES).anchors
    detector = build_detector(
        own_spec(model, CLASSES, config, teacher_anchors), torch.Generator().manual_seed(seed)
    ).eval()
    calibrate(detector, decoded(scene, 4))
    return detector


def random_teacher(scene: Scene) -> Detector:
    """YOLOv2."""
    return random_detector(scene, "yolov2", YoloV2Config(scene.width))


@torch.no_grad()
def calibrate(detector: Detector, inputs_B3HW: torch.Tensor) -> None:
    """Scale and shift the objectness logits, anchor by anchor, so that they spread over 4 and few are above −2.2."""
    anchors, entries = len(detector.anchors), BOX_ENTRIES + len(detector.classes)
    raw_BCHW = detector(inputs_B3HW)
    logits_AN = raw_BCHW.unflatten(1, (anchors, entries))[:, :, BOX_ENTRIES - 1].transpose(0, 1).flatten(1)
    slots = logits_AN.numel() / len(inputs_B3HW)
    factor_A = LOGIT_DEVIATION / logits_AN.std(dim=1).clamp_min(1e-6)
    firing_A = logits_AN.quantile(1 - min(FIRING_SLOTS / slots, 0.5), dim=1)
    rows = torch.arange(anchors) * entries + BOX_ENTRIES - 1
    head = detector.convolutions()[-1][1].convolution
    assert head.bias is not None
    wanted = log(FIRING_OBJECTNESS / (1 - FIRING_OBJECTNESS))
    head.weight[rows] *= factor_A[:, None, None, None]
    head.bias[rows] = (head.bias[rows] - firing_A) * factor_A + wanted
