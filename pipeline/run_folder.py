"""A run's folder: what was asked for, the state to go on from, the best network, and what was measured on the way.

run.json            the settings, resolved
last.safetensors    the whole training state, replaced after every epoch and when a warning comes
best.safetensors    the network that validated best, as `label`, `bench` and `predict` load it
final.safetensors   the network after the last step
metrics.jsonl       a line per epoch
tensorboard/        the same for TensorBoard
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from data.checkpoint import load_checkpoint, save_checkpoint
from data.errors import RequestError


@dataclass(frozen=True, slots=True)
class Position:
    """Where a training stands: `batch` batches of `epoch` are done, and the best validation so far was `best`."""

    epoch: int
    batch: int
    best: float | None

    def to_json(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "batch": self.batch, "best": self.best}


class RunFolder:
    """The files of one run; every write is atomic."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.settings_file = path / "run.json"
        self.last = path / "last.safetensors"
        self.best = path / "best.safetensors"
        self.final = path / "final.safetensors"
        self.metrics_file = path / "metrics.jsonl"
        self.tensorboard = path / "tensorboard"

    @staticmethod
    def require_new(path: Path) -> None:
        """RequestError where something is there already."""
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise RequestError(
                f"--run {path} exists and is not empty; go on with it by --resume, or name another folder"
            )

    @classmethod
    def create(cls, path: Path, settings: Mapping[str, Any]) -> "RunFolder":
        """A new run; RequestError as `require_new`."""
        cls.require_new(path)
        path.mkdir(parents=True, exist_ok=True)
        run = cls(path)
        _write_atomically(run.settings_file, json.dumps(dict(settings), indent=2, sort_keys=True) + "\n")
        return run

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """A run that was begun; RequestError where there is none."""
        run = cls(path)
        if not run.settings_file.is_file():
            raise RequestError(f"{path} is no run: run.json is missing; give the folder that --run named")
        return run

    def settings(self) -> dict[str, Any]:
        """run.json; RequestError where it can't be read."""
        try:
            settings = json.loads(self.settings_file.read_text())
        except ValueError as error:
            raise RequestError(f"{self.settings_file} is not JSON ({error}); begin a new run") from error
        if not isinstance(settings, dict):
            raise RequestError(f"{self.settings_file} is not a run's settings; begin a new run")
        return settings

    def save_state(self, tensors: Mapping[str, Tensor], position: Position, sums: Mapping[str, float]) -> None:
        """Replace last.safetensors. sums: the metrics collected in the epoch that is under way."""
        save_checkpoint(self.last, dict(tensors), {"position": position.to_json(), "sums": dict(sums)})

    def load_state(self) -> tuple[dict[str, Tensor], Position, dict[str, float]] | None:
        """What `save_state` left, or None before the first."""
        if not self.last.exists():
            return None
        tensors, metadata = load_checkpoint(self.last)
        try:
            return tensors, Position(**metadata["position"]), dict(metadata["sums"])
        except (KeyError, TypeError) as error:
            raise RequestError(f"{self.last} is no training state of this program; begin a new run") from error

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        """Add a line to metrics.jsonl."""
        with self.metrics_file.open("a") as file:
            file.write(json.dumps(dict(row), allow_nan=False) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl; none where there is no file yet."""
        if not self.metrics_file.exists():
            return []
        return [json.loads(line) for line in self.metrics_file.read_text().splitlines() if line.endswith("}")]

    def drop_metrics_after(self, epochs: int) -> None:
        """Keep the rows of the first `epochs`: a resumed run does the later ones again (it was killed after them)."""
        rows = [row for row in self.metrics() if row["epoch"] <= epochs]
        _write_atomically(self.metrics_file, "".join(json.dumps(row) + "\n" for row in rows))


def _write_atomically(path: Path, text: str) -> None:
    staged = path.with_name(path.name + ".part")
    with staged.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    staged.replace(path)
