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

_KEY = "distill"
"""The one key in the file's header: safetensors writes several in a random order, and equal states are equal files."""


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write named tensors (any dtype, any device) and JSON values to `path`, replacing what is there.

    The file appears whole or not at all: written beside its place, synchronised, renamed. OSError passes through; no
    temporary file is left behind then. The folder must exist.
    """
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    written = json.dumps(dict(metadata))
    header = {_KEY: json.dumps({"metadata": written, "crc32": checksum(written, stored)})}
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
    if path.is_dir():
        raise RequestError(f"{path} is a folder; expected a file written by distill.")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            if _KEY not in header:
                raise RequestError(f"{path} was not written by distill: it is a safetensors file without its metadata.")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        record = json.loads(header[_KEY])
        written, recorded = record["metadata"], record["crc32"]
    except FileNotFoundError as error:
        raise RequestError(f"{path} does not exist; expected a file written by distill.") from error
    except (SafetensorError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise RequestError(f"{path} is not a whole safetensors file ({error}); it is foreign or damaged.") from error
    if checksum(written, tensors) != recorded:
        raise RequestError(f"{path} is damaged: its content does not have the checksum it was written with.")
    return tensors, json.loads(written)


def checksum(metadata: str, tensors: Mapping[str, Tensor]) -> str:
    """CRC-32 of metadata as written and of tensors on the CPU with names, dtypes and shapes, as 8 hex digits."""
    value = zlib.crc32(metadata.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        value = zlib.crc32(f"{name} {tensor.dtype} {list(tensor.shape)}".encode(), value)
        value = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, value)
    return f"{value:08x}"


def _synchronise_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
