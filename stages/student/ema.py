"""An exponential moving average of a network, parameters and batch-norm statistics alike."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

UPDATES = "updates"
AVERAGE = "average."


class ExponentialMovingAverage:
    """Follows a module: average ← d · average + (1 − d) · value, once per step.

    d = min(decay, (1 + n) / (10 + n)) at the n-th update, counted from 0: the first averages forget the random start
    quickly (TensorFlow's `num_updates`). What isn't floating point (batch norm's counter) is copied. The average is
    kept in each tensor's own dtype and device; nothing of it is ever in a graph.
    """

    def __init__(self, module: nn.Module, decay: float = 0.9998) -> None:
        """Starts as a copy of the module. Raises ValueError unless 0 ≤ decay < 1."""
        if not 0 <= decay < 1:
            raise ValueError(f"the decay of a moving average is in [0, 1), not {decay}")
        self.decay = decay
        self.updates = 0
        self._average = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Take the module's present values in; after the optimiser's step."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, value in module.state_dict().items():
            average = self._average[name]
            if average.is_floating_point():
                average.lerp_(value, 1 - decay)
            else:
                average.copy_(value)
        self.updates += 1

    def copy_to(self, module: nn.Module) -> None:
        """Set the module's parameters and buffers to the average."""
        module.load_state_dict(self._average)

    def state_dict(self) -> dict[str, Tensor]:
        """All of the state as tensors (a safetensors file holds it): the average and an int64 count of updates.

        The tensors are the live ones; clone them to keep them past the next update.
        """
        return {UPDATES: torch.tensor(self.updates)} | {AVERAGE + name: value for name, value in self._average.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on exactly where `state_dict` was taken. Raises ValueError for the state of another network."""
        average = {name.removeprefix(AVERAGE): value for name, value in state.items() if name.startswith(AVERAGE)}
        shapes = {name: value.shape for name, value in average.items()}
        if UPDATES not in state or shapes != {name: value.shape for name, value in self._average.items()}:
            raise ValueError("this moving average belongs to another network: its tensors differ in name or shape")
        self.updates = int(state[UPDATES])
        for name, value in average.items():
            self._average[name].copy_(value)
