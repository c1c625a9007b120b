"""One optimisation step, and the whole state that makes the next one: what a run must save to go on exactly."""

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from data.errors import RequestError, WorkLeftError
from stages.device import Precision, autocast, placed
from stages.networks.network import Detector
from stages.student.ema import ExponentialMovingAverage
from stages.student.objective import ObjectiveConfig, objective
from stages.student.optimiser import parameter_groups
from stages.student.rank_errors import of_all_ranks
from stages.student.ranks import Ranks
from stages.student.samples import Batch


@dataclass(frozen=True, slots=True)
class OptimiserConfig:
    """Stochastic gradient descent as Darknet's (methods: momentum .9, weight decay 5e-4 on kernels only).

    clip_norm: gradients are scaled down to this L2 norm where they exceed it; None leaves them. ema_decay: of the
    exponential moving average of the weights that is evaluated and kept beside them; None keeps none.
    """

    momentum: float = 0.9
    weight_decay: float = 5e-4
    clip_norm: float | None = None
    ema_decay: float | None = None


ALIKE = frozenset({"total", "gradient_norm"})
"""What a step logs of the whole batch; each loss term is of this rank's slice, and the terms of all ranks add up."""


class Trainer:
    """The student under training: network, optimiser, moving average (kept by the first rank alone)."""

    def __init__(
        self,
        detector: Detector,
        losses: ObjectiveConfig,
        config: OptimiserConfig,
        *,
        device: torch.device,
        precision: Precision,
        memory_format: torch.memory_format = torch.channels_last,
        ranks: Ranks = Ranks(),  # noqa: B008  # a value that nobody can change
        synchronised: bool = True,
    ) -> None:
        if precision == "float16":
            raise of_all_ranks(
                RequestError("--precision float16 can't be trained in without loss scaling; give bfloat16 or float32")
            )
        self.detector = placed(detector, device, memory_format)
        self.ranks, self.network = ranks, ranks.replicate(self.detector, synchronised=synchronised)
        self.losses, self.config = losses, config
        self.anchors_A2 = torch.tensor(detector.anchors, device=device)
        self.device, self.precision, self.memory_format = device, precision, memory_format
        self.optimiser = torch.optim.SGD(
            parameter_groups(detector, config.weight_decay), lr=0.0, momentum=config.momentum, foreach=True
        )
        decay = config.ema_decay if ranks.first else None
        self.ema = ExponentialMovingAverage(detector, decay) if decay is not None else None

    def step(
        self, batch: Batch, learning_rate: float, *, prior_box: bool, whole: int | None = None
    ) -> dict[str, float]:
        """Learn from one batch; returns every loss term by name, the total and the gradient's L2 norm.

        whole: pictures of the whole batch, of which `batch` is this rank's slice; None where it is all of them. Each
        rank's loss is divided by its own pictures; weighted by their share of the batch, the losses add up to the loss
        of one process, and so do the gradients, whatever the slices' sizes and whichever terms a slice has.

        Raises WorkLeftError where the loss or the gradient is not finite, on every rank and before the weights are
        touched.
        """
        self.network.train()
        batch = batch.on(self.device, self.memory_format)
        share = 1.0 if whole is None else len(batch.labelled_B) / whole
        with self.ranks.exchanging():
            with autocast(self.device, self.precision):
                raw_BCHW = self.network(batch.pictures_B3HW)
            total, terms = objective(raw_BCHW, batch, self.anchors_A2, self.losses, prior_box=prior_box)
            self.optimiser.zero_grad(set_to_none=True)
            # the gradient becomes the mean over the ranks, and has to be their sum
            (total * (share * self.ranks.size)).backward()  # type: ignore[no-untyped-call]
        limit = math.inf if self.config.clip_norm is None else self.config.clip_norm
        norm = torch.nn.utils.clip_grad_norm_(self.detector.parameters(), limit)
        names = list(terms)
        values = torch.stack([*(terms[name].float() for name in names), total.detach().float(), norm.float()]).tolist()
        *parts, total_here, gradient_norm = values
        logged = {name: part * share for name, part in zip(names, parts, strict=True)}
        logged |= {"total": self.ranks.sum(total_here * share), "gradient_norm": gradient_norm}
        if not (math.isfinite(logged["total"]) and math.isfinite(logged["gradient_norm"])):
            whole_terms = self.ranks.sum_named(logged, ALIKE)
            said = ", ".join(f"{name} {value:.4g}" for name, value in whole_terms.items())
            raise of_all_ranks(
                WorkLeftError(
                    f"the loss is not finite ({said}). Nothing of this step was kept; lower --learning-rate, set "
                    "a smaller --clip-norm, or train in --precision float32, in a new run"
                )
            )
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate
        self.optimiser.step()
        if self.ema is not None:
            self.ema.update(self.detector)
        return logged

    def evaluated(self) -> Detector:
        """The network to evaluate and keep: the moving average where there is one, else the detector itself."""
        if self.ema is None:
            return self.detector
        averaged = copy.deepcopy(self.detector)
        self.ema.copy_to(averaged)
        return averaged

    def state(self) -> dict[str, Tensor]:
        """Everything the next step depends on, as named tensors: `model.…`, `momentum.…`, `ema.…`."""
        tensors = {f"model.{name}": value for name, value in self.detector.state_dict().items()}
        for name, parameter in self.detector.named_parameters():
            buffer = self.optimiser.state.get(parameter, {}).get("momentum_buffer")
            if buffer is not None:
                tensors[f"momentum.{name}"] = buffer
        if self.ema is not None:
            tensors |= {f"ema.{name}": value for name, value in self.ema.state_dict().items()}
        return tensors

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Take up `state()` again. Raises RequestError where the tensors are of another network."""
        try:
            self.detector.load_state_dict(_under("model.", tensors))
            if self.ema is not None:
                self.ema.load_state_dict(_under("ema.", tensors))
        except (RuntimeError, ValueError) as error:
            raise RequestError(f"the checkpoint is not of this student: {error}") from error
        momenta = _under("momentum.", tensors)
        for name, parameter in self.detector.named_parameters():
            if name in momenta:
                buffer = torch.empty_like(parameter, memory_format=torch.preserve_format).copy_(momenta[name])
                self.optimiser.state[parameter] = {"momentum_buffer": buffer}


def _under(prefix: str, tensors: dict[str, Any]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
