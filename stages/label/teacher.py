"""The teacher: a detector in inference mode that turns a batch of pictures into soft labels and feature maps."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from data.errors import RequestError, WorkLeftError
from data.store.schema import FmNmsAttributes
from stages.device import Precision, autocast, placed
from stages.label.fm_nms import filter_entries
from stages.networks.fuse import fuse
from stages.networks.network import Detector
from stages.networks.region import BOX_ENTRIES, activate


@dataclass(frozen=True, slots=True)
class TeacherOutput:
    """Of one batch, on the CPU. soft_labels: float16 [B, A, 5+K, H, W]; features: tap to float16 [B, C, H', W']."""

    soft_labels: Tensor
    features: dict[str, Tensor]


class Teacher:
    """A YOLOv2-family detector that labels.

    The detector is copied with its batch norm folded in and stays in evaluation mode: its running statistics can't
    move. `classes` picks some of the detector's classes by name, in the given order.
    """

    def __init__(
        self,
        detector: Detector,
        *,
        device: torch.device,
        precision: Precision = "float32",
        memory_format: torch.memory_format = torch.contiguous_format,
        fm_nms: FmNmsAttributes,
        classes: Sequence[str] | None = None,
        taps: Sequence[str] = (),
    ) -> None:
        detector.check_taps(taps)
        self.class_choice = choose_classes(detector.classes, classes)
        self.classes = tuple(detector.classes[i] for i in self.class_choice)
        self.anchors = detector.anchors
        self.network = placed(fuse(detector), device, memory_format)
        self.device, self.precision, self.memory_format = device, precision, memory_format
        self.fm_nms, self.taps = fm_nms, tuple(taps)

    @torch.inference_mode()
    def label(self, inputs_B3HW: Tensor) -> TeacherOutput:
        """Label a batch: float32 [B, 3, H, W], RGB in [0, 1].

        FM-NMS runs on the values rounded to float16, as they are stored. Raises WorkLeftError where the network's
        output is not finite (a half-precision overflow, or weights that are not a detector's).
        """
        inputs = inputs_B3HW.to(self.device, memory_format=self.memory_format, non_blocking=True)
        with autocast(self.device, self.precision):
            raw_BCHW, taps = self.network.forward_with_taps(inputs, self.taps)
        entries_BAEHW = self.entries(raw_BCHW)
        features = {tap: value.to(torch.float16) for tap, value in taps.items()}
        for name, value in {"output": entries_BAEHW, **features}.items():
            # Before FM-NMS: a slot that is not a number is no candidate, and would end as "nothing here".
            if not bool(torch.isfinite(value).all()):
                raise WorkLeftError(
                    f"the teacher's {name} is not finite in {self.precision}; nothing was written for this shard. "
                    "Label with --precision float32 into a new store, or look at the weights"
                )
        soft_labels = filter_entries(entries_BAEHW, torch.tensor(self.anchors), self.fm_nms).cpu()
        features = {tap: value.cpu() for tap, value in features.items()}
        return TeacherOutput(soft_labels, features)

    def entries(self, raw_BCHW: Tensor) -> Tensor:
        """The region head's entries in float16 [B, A, 5+K, H, W], in the chosen classes.

        With a choice of classes objectness becomes o·Σp over the chosen ones and the probabilities are renormalised,
        so that every score o·p stays what it was.
        """
        entries = activate(raw_BCHW.float(), len(self.anchors), len(self.network.classes))
        if len(self.class_choice) < len(self.network.classes):
            chosen = entries[:, :, BOX_ENTRIES:][:, :, list(self.class_choice)]
            mass = chosen.sum(dim=2, keepdim=True)
            # A class that underflowed everywhere leaves no mass: its objectness is 0, and any probabilities will do.
            chosen = chosen / mass.clamp_min(torch.finfo(torch.float32).tiny)
            entries = torch.cat([entries[:, :, :4], entries[:, :, 4:5] * mass, chosen], dim=2)
        else:
            order = [BOX_ENTRIES + i for i in self.class_choice]
            entries = entries[:, :, [*range(BOX_ENTRIES), *order]]
        return entries.to(torch.float16)


def choose_classes(known: Sequence[str], wanted: Sequence[str] | None) -> tuple[int, ...]:
    """Indices of the wanted classes, in their order; all of them where none is named. Unknown names are refused."""
    if not wanted:
        return tuple(range(len(known)))
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise RequestError(f"--classes {', '.join(unknown)}: the teacher knows {', '.join(known)}")
    if len(set(wanted)) < len(wanted):
        raise RequestError(f"--classes names a class twice: {', '.join(wanted)}")
    return tuple(known.index(name) for name in wanted)
