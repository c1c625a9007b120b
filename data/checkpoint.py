"""The project's own weight and state files: safetensors with JSON metadata, written atomically, never unpickled."""

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from data.errors import RequestError

_METADATA, _CHECKSUM = "distill", "crc32"


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write named tensors (any dtype, any device) and JSON values to `path`, replacing what is there.

    The file appears whole or not at all: written beside its place, synchronised, renamed. OSError passes through; no
    temporary file is left behind then. The folder must exist.
    """
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    header = {_METADATA: json.dumps(dict(metadata)), _CHECKSUM: _checksum(stored)}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(save(stored, header))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _synchronise_folder(path.parent)


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_checkpoint` wrote: tensors on the CPU by name, and the metadata.

    RequestError if the file is absent, of another kind, truncated or altered.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            if _METADATA not in header or _CHECKSUM not in header:
                raise RequestError(f"{path} was not written by distill: it is a safetensors file without its metadata.")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            metadata = json.loads(header[_METADATA])
    except FileNotFoundError as error:
        raise RequestError(f"{path} does not exist; expected a file written by distill.") from error
    except IsADirectoryError as error:
        raise RequestError(f"{path} is a folder; expected a file written by distill.") from error
    except (SafetensorError, json.JSONDecodeError) as error:
        raise RequestError(f"{path} is not a whole safetensors file ({error}); it is foreign or damaged.") from error
    if _checksum(tensors) != header[_CHECKSUM]:
        raise RequestError(f"{path} is damaged: its tensors do not have the checksum they were written with.")
    return tensors, metadata


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    value = 0
    for name in sorted(tensors):
        value = zlib.crc32(name.encode(), value)
        value = zlib.crc32(tensors[name].reshape(-1).view(torch.uint8).numpy().data, value)
    return f"{value:08x}"


def _synchronise_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
