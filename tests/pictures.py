"""Real photographs and tiny detectors to run the whole line on, in seconds."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from data.views import Resize
from stages.networks.cfg_layers import convolution_shapes, read_network
from stages.networks.model import build_detector, save_detector
from stages.networks.network import Detector
from stages.networks.spec import DetectorSpec, own_spec
from stages.networks.tiny_yolo import TinyYoloConfig
from stages.networks.yolov2 import YoloV2Config
from tests.reference_darknet import random_arrays, write_weights

ROOT = Path(__file__).resolve().parents[1]
CLASSES = ("Platelets", "RBC", "WBC")
SIDE = 96

DARKNET_CFG = (
    "[net]\nheight=64\nwidth=96\nchannels=3\n"
    + "".join(
        f"[convolutional]\nbatch_normalize=1\nfilters={filters}\nsize=3\nstride=1\npad=1\nactivation=leaky\n"
        "[maxpool]\nsize=2\nstride=2\n"
        for filters in (4, 4, 8, 8, 8)
    )
    + "[convolutional]\nfilters=16\nsize=1\nstride=1\npad=1\nactivation=linear\n"
    "[region]\nanchors=0.5,0.5, 1.5,1\nclasses=3\ncoords=4\nnum=2\nsoftmax=1\n"
)
"""A whole YOLOv2-family network with a stride of 32, in a few kilobytes."""


def bccd() -> Path:
    """The blood-smear photographs, with JPEGImages, Annotations and ImageSets/Main in VOC's layout.

    Those of the repository; else those shared beside the checkout. RuntimeError where there are none: the tests of the
    whole line mean nothing without real pictures.
    """
    for folder in (ROOT / "demo/bccd", ROOT.parent / "shared/data/bccd"):
        if (folder / "JPEGImages").is_dir():
            return folder
    raise RuntimeError(
        f"there are no photographs to test on: neither {ROOT}/demo/bccd nor ../shared/data/bccd is there"
    )


def stems(count: int) -> list[str]:
    """The first so many pictures that have annotations, by name without suffix."""
    annotated = {path.stem for path in (bccd() / "Annotations").glob("*.xml")}
    found = sorted(path.stem for path in (bccd() / "JPEGImages").glob("*.jpg") if path.stem in annotated)
    assert len(found) >= count, f"{bccd()} has only {len(found)} annotated pictures"
    return found[:count]


def copy_pictures(folder: Path, count: int) -> list[Path]:
    """Copies of the first so many annotated photographs in a new folder, sorted by name."""
    folder.mkdir(parents=True, exist_ok=True)
    for stem in stems(count):
        shutil.copyfile(bccd() / "JPEGImages" / f"{stem}.jpg", folder / f"{stem}.jpg")
    return sorted(folder.iterdir())


def copy_annotations(folder: Path, names: Sequence[str]) -> Path:
    """The VOC annotations of these pictures (without suffix) in a new folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        shutil.copyfile(bccd() / "Annotations" / f"{name}.xml", folder / f"{name}.xml")
    return folder


def write_list(path: Path, names: Sequence[str]) -> Path:
    """An ImageSets list."""
    path.write_text("".join(f"{name}\n" for name in names))
    return path


def damage(picture: Path) -> None:
    """Leave the first third of a JPEG file: its header is whole, its pixels are not."""
    content = picture.read_bytes()
    picture.write_bytes(content[: len(content) // 3])


def random_detector(spec: DetectorSpec, seed: int = 0) -> Detector:
    """A detector with random weights and batch-norm statistics in which every layer counts, in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    detector = build_detector(spec, generator)
    for _, block in detector.convolutions():
        if block.norm is not None:
            assert block.norm.running_mean is not None
            assert block.norm.running_var is not None
            with torch.no_grad():
                block.norm.running_mean.normal_(0, 0.1, generator=generator)
                block.norm.running_var.uniform_(0.3, 0.7, generator=generator)
    detector.eval()
    head = detector.convolutions()[-1][1].convolution
    with torch.no_grad():
        head.weight /= detector(torch.rand(1, 3, 96, 96, generator=generator)).std()  # else all answers are 0 or 1
    return detector


def write_teacher(
    path: Path,
    *,
    classes: Sequence[str] = CLASSES,
    side: int = SIDE,
    resize: Resize = "letterbox",
    width: float = 0.05,
    seed: int = 0,
) -> Path:
    """A model file of a narrow YOLOv2 with random weights, as a run leaves one."""
    anchors = ((0.4, 0.4), (0.8, 0.9), (1.5, 1.4))
    detector = random_detector(own_spec("yolov2", tuple(classes), YoloV2Config(width), anchors), seed)
    save_detector(path, detector, {"input": {"height": side, "width": side, "resize": resize}})
    return path


def write_student(path: Path, *, classes: Sequence[str] = CLASSES, side: int = SIDE, seed: int = 1) -> Path:
    """A model file of a narrow Tiny-YOLO with random weights."""
    detector = random_detector(own_spec("tiny-yolo", tuple(classes), TinyYoloConfig(0.05)), seed)
    save_detector(path, detector, {"input": {"height": side, "width": side, "resize": "letterbox"}})
    return path


def write_darknet(folder: Path, name: str = "tiny", *, cfg: str = DARKNET_CFG, seed: int = 0) -> Path:
    """NAME.weights with its NAME.cfg beside it; returns the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.cfg").write_text(cfg)
    arrays = random_arrays(convolution_shapes(read_network(cfg, name).layers), seed)
    write_weights(folder / f"{name}.weights", arrays)
    return folder / f"{name}.weights"


def snapshot(folder: Path) -> dict[str, Any]:
    """Everything below a folder: path to content, or None for a folder. Equal snapshots: nothing was written."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }
