"""Learning from a teacher's soft labels: the teacher's part of equations (2)–(4) of Mehta & Ozturk, "Object detection
at 200 Frames Per Second" (arXiv 1805.06361).

    (2)  λ_D · f_obj(o_T, ô)      (3)  o_T · λ_D · f_cl(p_T, p̂)      (4)  o_T · λ_D · f_bb(b_T, b̂)

T is the teacher after feature-map NMS, ^ the student, slot by slot. The paper leaves the functions f open ("simple L1
or L2 functions"); here they have the region layer's scales (region_loss.py), so that λ_D = 1 puts both parts on one
footing, and its form for the box:

    objectness  λ_D · (noobject_scale + o_T · (object_scale − noobject_scale)) · ¼ KL(o_T ‖ ô)
    class       λ_D · o_T · class_scale · KL(p_T ‖ p̂)
    box         λ_D · o_T · coord_scale · (2 − w·h) · ½ ‖t_T − t̂‖²    t = (σ(x), σ(y), w, h raw), w·h the teacher's

KL is the cross-entropy less the teacher's entropy: the same gradient, and zero when student and teacher agree. That of
the objectness, between two outcomes, has the slope ¼ (ô − o_T): Darknet's squared error through the logistic has it at
ô = ½ and loses it towards 0 and 1, where most slots are (docs/decisions/0012 has what measured better). The objectness
scale goes from the region layer's for background to its for objects as the teacher's confidence does. No temperature,
no threshold on o_T.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from stages.networks.region import BOX_ENTRIES
from stages.student.region_loss import RegionLossConfig, box_scale, split_slots


@dataclass(frozen=True, slots=True)
class DistillationConfig:
    """weight: λ_D. objectness, box, classes: which terms there are.

    objectness_scaling: the factor o_T of (3) and (4). Without it (the paper's ablation) the factor is 1 on the slots
    the teacher kept and 0 elsewhere: a slot that was not kept is stored as zeros and has no class or box to learn.
    """

    weight: float = 1.0
    objectness_scaling: bool = True
    objectness: bool = True
    box: bool = True
    classes: bool = True


def distillation_loss(
    raw_BCHW: Tensor,
    teacher_BAEHW: Tensor,
    weight_B: Tensor,
    anchors_A2: Tensor,
    config: DistillationConfig,
    scales: RegionLossConfig,
) -> dict[str, Tensor]:
    """The teacher's terms as named scalars; their sum is the loss.

    raw_BCHW: the student's raw output, C = A·(5+K). Computed in float32 whatever the network ran in; float64 stays.
    teacher_BAEHW: soft labels in the student's grid and anchors, E = 5+K: x, y through the logistic, w, h raw,
    objectness, class probabilities (normalised again here, after float16); all zeros where nothing was kept, as in
    padding, which counts as background.
    weight_B: float; where 0 the picture has no soft labels (its rows may hold anything, NaN included) and contributes
    exactly nothing, to value and gradient; below 1 where other teachers have a say in it too. anchors_A2: in cells of
    the grid.

    Each term is summed over slots and pictures, by weight, and divided by B, all pictures of the batch, as the region
    loss is: a batch with few soft labels weighs less, and every picture weighs the same in an epoch.
    Keys: objectness, box, class, those switched on. Raises ValueError when the shapes don't fit.
    """
    raw_BAEHW = split_slots(raw_BCHW, len(anchors_A2))
    if teacher_BAEHW.shape != raw_BAEHW.shape:
        raise ValueError(f"soft labels {tuple(teacher_BAEHW.shape)} do not fit the output {tuple(raw_BAEHW.shape)}")
    anchors_A2 = anchors_A2.to(raw_BAEHW)
    weight_B111 = weight_B.to(raw_BAEHW)[:, None, None, None]
    teacher_BAEHW = teacher_BAEHW.to(raw_BAEHW).where(weight_B111[..., None] > 0, 0.0)
    pieces = [2, 2, 1, raw_BAEHW.shape[2] - BOX_ENTRIES]
    xy_BA2HW, wh_BA2HW, objectness_BA1HW, classes_BAKHW = torch.split(raw_BAEHW, pieces, dim=2)
    xy_T_BA2HW, wh_T_BA2HW, o_T_BA1HW, p_T_BAKHW = torch.split(teacher_BAEHW, pieces, dim=2)
    o_T_BAHW = o_T_BA1HW.squeeze(2)
    factor_BAHW = weight_B111 * (o_T_BAHW if config.objectness_scaling else (o_T_BAHW > 0).to(o_T_BAHW))

    terms = {}
    if config.objectness:
        scale_BAHW = scales.noobject_scale + o_T_BAHW * (scales.object_scale - scales.noobject_scale)
        divergence_BAHW = _divergence_of_two(o_T_BAHW, objectness_BA1HW.squeeze(2))
        terms["objectness"] = 0.25 * (weight_B111 * scale_BAHW * divergence_BAHW).sum()
    if config.box:
        scale_BAHW = scales.coord_scale * _teacher_box_scale(wh_T_BA2HW, anchors_A2)
        error_BAHW = (xy_T_BA2HW - xy_BA2HW.sigmoid()).square().sum(2) + (wh_T_BA2HW - wh_BA2HW).square().sum(2)
        terms["box"] = 0.5 * (factor_BAHW * scale_BAHW * error_BAHW).sum()
    if config.classes:
        terms["class"] = scales.class_scale * (factor_BAHW * _divergence(p_T_BAKHW, classes_BAKHW)).sum()
    return {name: config.weight * term / len(raw_BCHW) for name, term in terms.items()}


def _teacher_box_scale(wh_BA2HW: Tensor, anchors_A2: Tensor) -> Tensor:
    """2 − w·h of every slot's box, [B, A, H, W]. Sizes are clipped to the input's, which truths never exceed but
    predictions do: a box of twice the input's area must not get a negative weight."""
    rows, columns = wh_BA2HW.shape[-2:]
    size_BA2HW = wh_BA2HW.exp() * (anchors_A2 / anchors_A2.new_tensor([columns, rows]))[:, :, None, None]
    width_BAHW, height_BAHW = size_BA2HW.clamp(max=1).unbind(2)
    return box_scale(width_BAHW, height_BAHW)


def _divergence_of_two(o_BAHW: Tensor, logit_BAHW: Tensor) -> Tensor:
    """KL between two outcomes of probabilities o, 1 − o and σ(logit), 1 − σ(logit); [B, A, H, W]."""
    certainty_BAHW = torch.xlogy(o_BAHW, o_BAHW) + torch.xlogy(1 - o_BAHW, 1 - o_BAHW)
    return certainty_BAHW + binary_cross_entropy_with_logits(logit_BAHW, o_BAHW, reduction="none")


def _divergence(p_BAKHW: Tensor, logits_BAKHW: Tensor) -> Tensor:
    """KL(p ‖ softmax(logits)) of every slot, [B, A, H, W]; 0 where p is all zeros."""
    p_BAKHW = p_BAKHW / p_BAKHW.sum(2, keepdim=True).clamp(min=torch.finfo(p_BAKHW.dtype).tiny)
    return (torch.xlogy(p_BAKHW, p_BAKHW) - p_BAKHW * logits_BAKHW.log_softmax(2)).sum(2)
