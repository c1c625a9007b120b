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


class Trainer:
    """The student under training: network, optimiser, moving average."""

    def __init__(
        self,
        detector: Detector,
        losses: ObjectiveConfig,
        config: OptimiserConfig,
        *,
        device: torch.device,
        precision: Precision,
        memory_format: torch.memory_format = torch.channels_last,
    ) -> None:
        if precision == "float16":
            raise RequestError("--precision float16 can't be trained in without loss scaling; give bfloat16 or float32")
        self.detector = placed(detector, device, memory_format)
        self.losses, self.config = losses, config
        self.anchors_A2 = torch.tensor(detector.anchors, device=device)
        self.device, self.precision, self.memory_format = device, precision, memory_format
        self.optimiser = torch.optim.SGD(
            parameter_groups(detector, config.weight_decay), lr=0.0, momentum=config.momentum, foreach=True
        )
        self.ema = ExponentialMovingAverage(detector, config.ema_decay) if config.ema_decay is not None else None

    def step(self, batch: Batch, learning_rate: float, *, prior_box: bool) -> dict[str, float]:
        """Learn from one batch; returns every loss term by name, the total and the gradient's L2 norm.

        Raises WorkLeftError where the loss or the gradient is not finite, before the weights are touched.
        """
        self.detector.train()
        batch = batch.on(self.device, self.memory_format)
        with autocast(self.device, self.precision):
            raw_BCHW = self.detector(batch.pictures_B3HW)
        total, terms = objective(raw_BCHW, batch, self.anchors_A2, self.losses, prior_box=prior_box)
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        limit = math.inf if self.config.clip_norm is None else self.config.clip_norm
        norm = torch.nn.utils.clip_grad_norm_(self.detector.parameters(), limit)
        names = list(terms)
        values = torch.stack([*(terms[name].float() for name in names), total.detach().float(), norm.float()]).tolist()
        logged = dict(zip([*names, "total", "gradient_norm"], values, strict=True))
        if not (math.isfinite(logged["total"]) and math.isfinite(logged["gradient_norm"])):
            said = ", ".join(f"{name} {value:.4g}" for name, value in logged.items())
            raise WorkLeftError(
                f"the loss is not finite ({said}). Nothing of this step was kept; lower --learning-rate, set "
                "a smaller --clip-norm, or train in --precision float32, in a new run"
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
