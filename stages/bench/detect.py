"""A detector made ready to be used: picture in, boxes out. Validation, bench and predict all go through it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.boxes import Detections
from data.views import Resize, View, render, resize_view
from stages.device import Precision, autocast, placed
from stages.networks.fuse import fuse
from stages.networks.network import Detector
from stages.networks.postprocess import IOU_THRESHOLD, SCORE_THRESHOLD, detections_of_batch
from stages.networks.region import activate


@dataclass(frozen=True, slots=True)
class Prepared:
    """A picture on its way: float32 [3, H, W] as the network sees it, the view that made it, its decoded size."""

    pixels: NDArray[np.float32]
    view: View
    height: int
    width: int


class Predictor:
    """A fused copy of a detector in evaluation mode, with the input geometry it is used at."""

    def __init__(
        self,
        detector: Detector,
        *,
        height: int,
        width: int,
        resize: Resize,
        device: torch.device,
        precision: Precision = "float32",
        memory_format: torch.memory_format = torch.channels_last,
    ) -> None:
        self.network = placed(fuse(detector), device, memory_format)
        self.classes, self.anchors = detector.classes, detector.anchors
        self.height, self.width, self.resize = height, width, resize
        self.device, self.precision, self.memory_format = device, precision, memory_format

    def prepare(self, picture: NDArray[np.uint8]) -> Prepared:
        """Resize a decoded picture, uint8 [height, width, 3], to the network's input."""
        rows, columns = picture.shape[:2]
        view = resize_view(self.resize, rows, columns, self.height, self.width)
        return Prepared(render(picture, view), view, rows, columns)

    @torch.inference_mode()
    def forward(self, prepared: Sequence[Prepared]) -> Tensor:
        """Region entries of a batch, float32 [B, A, 5+K, H, W], on the device."""
        pixels = torch.from_numpy(np.stack([item.pixels for item in prepared]))
        inputs = pixels.to(self.device, memory_format=self.memory_format)
        with autocast(self.device, self.precision):
            raw_BCHW = self.network(inputs)
        return activate(raw_BCHW.float(), len(self.anchors), len(self.classes))

    def finish(
        self,
        entries_BAEHW: Tensor,
        prepared: Sequence[Prepared],
        *,
        score_threshold: float = SCORE_THRESHOLD,
        iou_threshold: float = IOU_THRESHOLD,
    ) -> list[Detections]:
        """Boxes of every picture of the batch, clipped to it, after per-class NMS; Darknet's validation thresholds."""
        return detections_of_batch(
            entries_BAEHW,
            self.anchors,
            [item.view for item in prepared],
            [(item.height, item.width) for item in prepared],
            score_threshold=score_threshold,
            iou_threshold=iou_threshold,
            clip=True,
        )

    def detect(
        self, pictures: Sequence[NDArray[np.uint8]], *, score_threshold: float = SCORE_THRESHOLD
    ) -> list[Detections]:
        """All of it for a few decoded pictures."""
        prepared = [self.prepare(picture) for picture in pictures]
        return self.finish(self.forward(prepared), prepared, score_threshold=score_threshold)
