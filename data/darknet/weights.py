"""Darknet's weights files (src/parser.c, load_weights_upto and load_convolutional_weights of f6afaab).

Little-endian. int32 major, minor, revision; how many pictures were seen, in 8 bytes if major·10 + minor >= 2, else in
4. Then for every convolution in cfg order, float32: bias [n]; with batch normalisation scale, mean, variance [n] each;
kernel [n, c, k, k].
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.errors import RequestError

_LARGEST_VERSION = 1000


@dataclass(frozen=True, slots=True)
class ConvolutionShape:
    """What a convolution takes in a weights file. channels: of its input, divided by its groups."""

    filters: int
    channels: int
    kernel: int
    batch_norm: bool

    @property
    def values(self) -> int:
        """How many float32 the file holds for it."""
        per_filter = self.channels * self.kernel**2 + (4 if self.batch_norm else 1)
        return self.filters * per_filter


@dataclass(frozen=True, slots=True)
class ConvolutionArrays:
    """One convolution's values, float32. bias is the shift of the batch normalisation where there is one.

    bias, scale, mean, variance: [n]; the last three None without batch normalisation. kernel: [n, c, k, k].
    """

    bias: NDArray[np.float32]
    scale: NDArray[np.float32] | None
    mean: NDArray[np.float32] | None
    variance: NDArray[np.float32] | None
    kernel: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """A weights file's header and everything behind it. seen: pictures trained on. values: float32 [n]."""

    path: Path
    major: int
    minor: int
    seen: int
    header_bytes: int
    nbytes: int
    values: NDArray[np.float32]


def read_weights(path: Path) -> WeightsFile:
    """Read header and values. RequestError if the file is absent, or its header is none of Darknet's."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise RequestError(f"{path} does not exist; expected a Darknet weights file.") from None
    except IsADirectoryError:
        raise RequestError(f"{path} is a folder; expected a Darknet weights file.") from None
    if len(content) < 16:
        raise RequestError(f"{path} is not a Darknet weights file: it has {len(content)} bytes, a header alone has 16.")
    major, minor, revision = struct.unpack_from("<3i", content)
    if not (0 <= major < _LARGEST_VERSION and 0 <= minor < _LARGEST_VERSION and 0 <= revision < _LARGEST_VERSION):
        raise RequestError(
            f"{path} ({len(content)} bytes) is not a Darknet weights file: its header says version "
            f"{major}.{minor}.{revision}, Darknet's are small numbers such as 0.1.0 and 0.2.0."
        )
    header_bytes = 20 if major * 10 + minor >= 2 else 16
    if len(content) < header_bytes:
        raise RequestError(f"{path} is too short: it has {len(content)} bytes, its header alone has {header_bytes}.")
    seen = struct.unpack_from("<q" if header_bytes == 20 else "<i", content, 12)[0]
    count = (len(content) - header_bytes) // 4
    values = np.frombuffer(content, "<f4", count, header_bytes).astype(np.float32, copy=False)
    return WeightsFile(path, major, minor, seen, header_bytes, len(content), values)


def read_convolutions(file: WeightsFile, shapes: Sequence[ConvolutionShape]) -> list[ConvolutionArrays]:
    """Every convolution of a network. RequestError with both sizes if the file is not exactly as long as that takes."""
    expected = file.header_bytes + 4 * sum(shape.values for shape in shapes)
    if file.nbytes != expected:
        raise RequestError(
            f"{file.path} is too {'short' if file.nbytes < expected else 'long'}: the network's {len(shapes)} "
            f"convolutions take {expected} bytes, the file has {file.nbytes}; it is damaged or belongs to another cfg."
        )
    return _split(file, shapes)


def read_leading_convolutions(
    file: WeightsFile, shapes: Sequence[ConvolutionShape], more_may_follow: bool
) -> list[ConvolutionArrays]:
    """The first convolutions of a network, as many as a truncated file (`.conv.N`) has.

    more_may_follow: the file may go on after all of `shapes`, with layers that are no convolutions.
    RequestError with the sizes if the file ends within a convolution or goes on where it must not.
    """
    ends = [file.header_bytes]
    for shape in shapes:
        ends.append(ends[-1] + 4 * shape.values)
    if file.nbytes in ends:
        return _split(file, shapes[: ends.index(file.nbytes)])
    if file.nbytes > ends[-1]:
        if more_may_follow:
            return _split(file, shapes)
        raise RequestError(
            f"{file.path} is too long: all {len(shapes)} convolutions take {ends[-1]} bytes, the file has "
            f"{file.nbytes}; it belongs to another network: give that network's cfg."
        )
    whole = sum(end < file.nbytes for end in ends) - 1
    raise RequestError(
        f"{file.path} ends within convolution {whole + 1}: {whole} convolutions take {ends[whole]} bytes, "
        f"{whole + 1} take {ends[whole + 1]}, the file has {file.nbytes}; it is damaged or belongs to another network: "
        f"give that network's cfg."
    )


def _split(file: WeightsFile, shapes: Sequence[ConvolutionShape]) -> list[ConvolutionArrays]:
    total = sum(shape.values for shape in shapes)
    if not np.isfinite(file.values[:total]).all():
        raise RequestError(f"{file.path} holds values that are not finite numbers; it is damaged or no weights file.")
    arrays, position = [], 0
    for number, shape in enumerate(shapes, start=1):
        part = file.values[position : position + shape.values]
        position += shape.values
        vectors = part[: shape.filters * (4 if shape.batch_norm else 1)].reshape(-1, shape.filters)
        kernel = part[vectors.size :].reshape(shape.filters, shape.channels, shape.kernel, shape.kernel)
        if not shape.batch_norm:
            arrays.append(ConvolutionArrays(vectors[0], None, None, None, kernel))
            continue
        bias, scale, mean, variance = vectors
        if (variance < 0).any():
            raise RequestError(
                f"{file.path} has negative variances in convolution {number}; it is damaged or belongs to another cfg."
            )
        arrays.append(ConvolutionArrays(bias, scale, mean, variance, kernel))
    return arrays
