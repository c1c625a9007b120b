"""A detector from wherever the user has one: Darknet files, a run, or a model file of a run."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.checkpoint import load_checkpoint
from data.errors import RequestError
from data.views import Resize
from pipeline.run_folder import RunFolder
from stages.networks.from_cfg import load_darknet
from stages.networks.model import empty_detector, load_weights
from stages.networks.network import Detector
from stages.networks.spec import DetectorSpec

MODEL_SUFFIX = ".safetensors"


@dataclass(frozen=True, slots=True)
class LoadedDetector:
    """A detector on the CPU and what is known of it. height, width: the input it was made for, in pixels.

    name: the file's stem, or the run folder's name. The digests are hex SHA-256 of the files; there is a cfg only
    with Darknet weights. file: the weights.
    """

    detector: Detector
    name: str
    weights_sha256: str
    cfg_sha256: str | None
    height: int
    width: int
    resize: Resize
    file: Path


def load_detector_source(path: Path, cfg: Path | None = None, names: Path | None = None) -> LoadedDetector:
    """Load Darknet weights, a run folder (its best network), or a .safetensors model file.

    Without `cfg` and `names`, Darknet weights take those of their own stem that lie beside them.
    Raises RequestError for anything else, and for files that don't fit together.
    """
    if path.is_dir():
        run = RunFolder.open(path)
        file = run.best if run.best.exists() else run.final
        if not file.exists():
            raise RequestError(
                f"{path} has no network yet: its training has not validated or ended; go on with --resume"
            )
        return _from_model_file(file, path.resolve().name, cfg, names)
    if not path.exists():
        raise RequestError(
            f"{path} does not exist; expected Darknet .weights, a run folder or a .safetensors model file"
        )
    if path.suffix == MODEL_SUFFIX:
        return _from_model_file(path, path.stem, cfg, names)
    cfg = cfg or _beside(path, ".cfg")
    if cfg is None and path.suffix != ".weights":
        raise RequestError(f"{path} is neither Darknet .weights, a run folder nor a .safetensors model file")
    if cfg is None:
        raise RequestError(
            f"{path} needs its Darknet .cfg: lay it beside as {path.with_suffix('.cfg').name}, or, where there is that "
            "flag, give it with --cfg"
        )
    model = load_darknet(cfg, path, names or _beside(path, ".names"))
    return LoadedDetector(
        detector=model.detector,
        name=path.stem,
        weights_sha256=model.weights_sha256,
        cfg_sha256=model.cfg_sha256,
        height=model.input_height,
        width=model.input_width,
        resize="letterbox",
        file=path,
    )


def _beside(path: Path, suffix: str) -> Path | None:
    other = path.with_suffix(suffix)
    return other if other.exists() else None


def _from_model_file(file: Path, name: str, cfg: Path | None, names: Path | None) -> LoadedDetector:
    if cfg is not None or names is not None:
        raise RequestError(f"{file} holds its own network and class names; leave out --cfg and --names")
    tensors, metadata = load_checkpoint(file)
    try:
        geometry: dict[str, Any] = metadata["input"]
        height, width, resize = int(geometry["height"]), int(geometry["width"]), geometry["resize"]
        spec = DetectorSpec.from_json(metadata["detector"])
    except (KeyError, TypeError) as error:
        raise RequestError(f"{file} is no model file of a run: {error} is missing in its metadata") from error
    detector = empty_detector(spec)
    load_weights(detector, tensors, str(file))
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return LoadedDetector(detector.eval(), name, digest, None, height, width, resize, file)
