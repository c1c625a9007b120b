"""One frame at a time: the students and what they are compared with, from the decoded frame to boxes."""

from collections.abc import Sequence

from torch import Tensor

from data.images import read_picture
from parts.scene import Scene, pictures, random_detector
from parts.turns import Finding, Spread
from stages.bench.detect import Predictor, Prepared
from stages.bench.speed import DetectorParts, Schedule, measure_detectors
from stages.device import Precision
from stages.networks.f_yolo import FYoloConfig
from stages.networks.spec import ModelConfig
from stages.networks.tiny_yolo import TinyYoloConfig
from stages.networks.yolov2 import YoloV2Config

FRAMES = 16


def models(width: float) -> dict[str, tuple[str, ModelConfig]]:
    """Name for people to (model, configuration)."""
    return {
        "F-YOLO, reading A": ("f-yolo", FYoloConfig(reading="A", width=width)),
        "F-YOLO, reading B": ("f-yolo", FYoloConfig(reading="B", width=width)),
        "Tiny-YOLO": ("tiny-yolo", TinyYoloConfig(width)),
        "YOLOv2": ("yolov2", YoloV2Config(width)),
    }


def measure_latency(scene: Scene, precisions: Sequence[Precision], schedule: Schedule) -> list[Finding]:
    """Frames per second at batch 1; random weights whose heads fire like trained ones."""
    frames = [read_picture(picture.path).pixels for picture in pictures(scene, FRAMES)]
    predictors = {
        f"{name}, {precision}": Predictor(
            random_detector(scene, model, config),
            height=scene.input_size,
            width=scene.input_size,
            resize="letterbox",
            device=scene.device,
            precision=precision,
        )
        for name, (model, config) in models(scene.width).items()
        for precision in precisions
    }
    reports = measure_detectors(
        frames, {name: parts(predictor) for name, predictor in predictors.items()}, scene.device, schedule
    )
    findings = []
    for name, report in reports.items():
        whole = report.complete
        passes = [1000 / median for median in whole.pass_medians_ms]
        findings.append(
            Finding(
                f"{name}, batch 1",
                "frames/s",
                Spread(whole.fps, min(passes), max(passes)),
                digits=1,
                details=f"{whole.median_ms:.1f} ms (p95 {whole.p95_ms:.1f}); without post-processing "
                f"{report.without_postprocessing.median_ms:.1f}, the network alone {report.network_only.median_ms:.1f}",
            )
        )
    return findings


def parts(predictor: Predictor) -> DetectorParts[Prepared, Tensor]:
    """A predictor as the three calls that are timed."""
    return DetectorParts(
        prepare=predictor.prepare,
        network=lambda prepared: predictor.forward([prepared]),
        postprocess=lambda entries, prepared: predictor.finish(entries, [prepared]),
    )
