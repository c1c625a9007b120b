"""What the student minimises: equation (5) of arXiv 1805.06361, the plain sum of named terms.

Every term carries its own weight already, from the config of the loss it belongs to; adding a loss is adding its terms.
"""

from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from stages.student.distillation_loss import DistillationConfig, distillation_loss
from stages.student.region_loss import RegionLossConfig, region_loss


@dataclass(frozen=True, slots=True)
class ObjectiveConfig:
    """The configs of the losses; the teacher's terms take the region layer's scales from `region`."""

    region: RegionLossConfig = field(default_factory=RegionLossConfig)
    distillation: DistillationConfig = field(default_factory=DistillationConfig)


class Targets(Protocol):
    """What a batch says about its pictures; shapes and meaning as in `region_loss` and `distillation_loss`.

    teachers_SBAEHW has a layer for each of S teachers, or is None without any; weights_SB is 0 where a teacher says
    nothing about a picture. Mask and weights are best left on the CPU: asking whether a batch has a labelled picture
    then doesn't wait for the device.
    """

    @property
    def boxes_BT4(self) -> Tensor: ...
    @property
    def labels_BT(self) -> Tensor: ...
    @property
    def labelled_B(self) -> Tensor: ...
    @property
    def teachers_SBAEHW(self) -> Tensor | None: ...
    @property
    def weights_SB(self) -> Tensor: ...


def objective(
    raw_BCHW: Tensor, targets: Targets, anchors_A2: Tensor, config: ObjectiveConfig, *, prior_box: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss to step on, a scalar, and its terms by name, detached, for the log.

    The terms are `region/…` (left out of a batch without labelled pictures) and `distillation/…` (left out without a
    teacher, or of a batch without soft labels). A batch with neither has a loss of 0, whose gradient is 0. The losses
    of several teachers are added by weight: what they say of one object may lie in different slots, so that labels
    can't be averaged.
    prior_box: whether training is still in the prior-box phase (schedule.prior_box_steps).
    """
    terms: dict[str, Tensor] = {}
    if targets.labelled_B.any():
        region = region_loss(
            raw_BCHW,
            targets.boxes_BT4,
            targets.labels_BT,
            targets.labelled_B,
            anchors_A2,
            config.region,
            prior_box=prior_box,
        )
        terms |= {f"region/{name}": term for name, term in region.items()}
    if targets.teachers_SBAEHW is not None:
        for teacher_BAEHW, weight_B in zip(targets.teachers_SBAEHW, targets.weights_SB, strict=True):
            if not weight_B.any():
                continue
            distillation = distillation_loss(
                raw_BCHW, teacher_BAEHW, weight_B, anchors_A2, config.distillation, config.region
            )
            for name, term in distillation.items():
                before = terms.get(f"distillation/{name}")
                terms[f"distillation/{name}"] = term if before is None else before + term
    # The sum over no pictures is a 0 that still reaches the parameters, so that backward() works on every batch.
    total = torch.stack([*terms.values()]).sum() if terms else raw_BCHW[:0].float().sum()
    return total, {name: term.detach() for name, term in terms.items()}
