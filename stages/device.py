"""Which device computes, and in which number format: `auto` resolved once, so that it can be recorded."""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal, TypeVar

import torch
from torch import nn

from data.errors import RequestError

Precision = Literal["float32", "bfloat16", "float16"]
DTYPES: dict[str, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve_device(name: str) -> torch.device:
    """`auto`, `cpu`, `cuda` or `cuda:N` as a device that is there; RequestError where it is not."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise RequestError(f"--device {name} is not a device; give auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise RequestError(f"--device {name} is not supported; give auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise RequestError(
            f"--device {name}: this machine has {torch.cuda.device_count()} CUDA devices; give --device cpu"
        )
    return device


def resolve_precision(name: str, device: torch.device) -> Precision:
    """`auto` becomes bfloat16 where the device multiplies it in hardware (CUDA from Ampere, CPUs with AMX or AVX-512
    BF16), else float32; a named precision stays what it is."""
    if name == "auto":
        return "bfloat16" if _has_bfloat16(device) else "float32"
    if name not in DTYPES:
        raise RequestError(f"--precision {name} is unknown; give auto, {', '.join(DTYPES)}")
    return name  # type: ignore[return-value]  # narrowed by the look-up above


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return bool(torch.backends.cpu.get_cpu_capability() == "AVX512" and torch.cpu._is_avx512_bf16_supported())


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """Mixed precision for a forward pass; nothing at all in float32."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=DTYPES[precision])


Network = TypeVar("Network", bound=nn.Module)


def placed(network: Network, device: torch.device, memory_format: torch.memory_format) -> Network:
    """The network itself, moved; torch's own `to` has no typed form with a memory format."""
    network.to(device=device, memory_format=memory_format)  # type: ignore[call-overload]
    return network


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given; timings need it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
