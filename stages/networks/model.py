"""Detectors made from their specs, and the model files that hold them: safetensors, with the spec as metadata."""

from pathlib import Path
from typing import Any

import torch

from data.checkpoint import load_checkpoint, save_checkpoint
from data.errors import RequestError
from stages.networks.network import Detector
from stages.networks.spec import DetectorSpec, detector_layers


def build_detector(spec: DetectorSpec, generator: torch.Generator | None = None) -> Detector:
    """A freshly initialised detector, in training mode, drawn from `generator` (or torch's global one)."""
    detector = empty_detector(spec)
    detector.initialise(generator)
    return detector


def empty_detector(spec: DetectorSpec) -> Detector:
    """A detector on the CPU whose weights are yet to be written: every one of them."""
    with torch.device("meta"):
        detector = Detector(spec, detector_layers(spec))
    return detector.to_empty(device="cpu")


_SPEC_KEY = "detector"


def save_detector(path: Path, detector: Detector, extra: dict[str, Any] | None = None) -> None:
    """Write a model file: safetensors, with the spec and `extra` (JSON values) as metadata. Atomic.

    ValueError for a fused detector: its weights are no longer those of its spec.
    """
    if detector.layers != tuple(detector_layers(detector.spec)):
        raise ValueError("a fused detector cannot be saved; save the one it was made from")
    metadata = {**(extra or {}), _SPEC_KEY: detector.spec.to_json()}
    save_checkpoint(path, dict(detector.state_dict()), metadata)


def load_detector(path: Path) -> Detector:
    """Read a model file: the detector on the CPU, in inference mode.

    RequestError if the file is none, or its tensors do not fit the detector it describes.
    """
    tensors, metadata = load_checkpoint(path)
    if _SPEC_KEY not in metadata:
        raise RequestError(f"{path} is not a model file: it does not say which detector its weights belong to.")
    detector = empty_detector(DetectorSpec.from_json(metadata[_SPEC_KEY]))
    load_weights(detector, tensors, str(path))
    return detector.eval()


def load_weights(detector: Detector, tensors: dict[str, torch.Tensor], where: str) -> None:
    """Copy a state dict into the detector. RequestError unless names and shapes are exactly the detector's."""
    expected = detector.state_dict()
    missing, foreign = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    if missing or foreign:
        raise RequestError(
            f"{where}: the weights do not belong to this {detector.spec.model}: {len(missing)} tensors are missing"
            f"{_first(missing)} and {len(foreign)} are foreign to it{_first(foreign)}."
        )
    for name, tensor in expected.items():
        if tensors[name].shape != tensor.shape:
            raise RequestError(
                f"{where}: {name} has the shape {list(tensors[name].shape)}, but this {detector.spec.model} needs "
                f"{list(tensor.shape)}."
            )
    detector.load_state_dict(tensors)


def _first(names: list[str]) -> str:
    return f" (first: {names[0]})" if names else ""
