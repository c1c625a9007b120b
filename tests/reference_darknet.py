"""Darknet's layers once more, slowly, and a writer of its weights files, for tests without the reference files."""

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.darknet.weights import ConvolutionShape

DETECTOR_CFG = """
[net]
height=64
width=96 # a comment behind a value
channels=3

[convolutional]
batch_normalize=1
filters=4
size=3
stride=1
pad=1
activation=leaky

[maxpool]
size=2
stride=2

; another comment
[convolutional]
batch_normalize=1
filters=8
size=3
stride=2
pad=1
activation=leaky

[convolutional]
filters=4
size=1
stride=1
pad=1
activation=linear

[reorg]
stride=2

[route]
layers=-3

[maxpool]
size=2
stride=2

[route]
layers = -1, 4

[maxpool]
size=2
stride=1

[convolutional]
batch_normalize=1
groups=4
filters=8
size=3
stride=1
pad=1
activation=leaky

[convolutional]
filters=14
size=1
stride=1
pad=1
activation=linear

[region]
anchors=1,2, 3,4
classes=2
coords=4
num=2
softmax=1
"""
"""A detector with every supported kind of layer; its grid is an eighth of the input."""


def random_arrays(shapes: Sequence[ConvolutionShape], seed: int = 0) -> list[dict[str, np.ndarray]]:
    """One dictionary a convolution, keys in the order of the file."""
    random = np.random.default_rng(seed)
    arrays = []
    for shape in shapes:
        n, kernel = shape.filters, (shape.filters, shape.channels, shape.kernel, shape.kernel)
        values = {"bias": random.normal(0, 0.3, n)}
        if shape.batch_norm:
            values |= {
                "scale": random.uniform(0.5, 1.5, n),
                "mean": random.normal(0, 0.3, n),
                "variance": random.uniform(1e-3, 1, n) ** 2,  # small ones too: there the 1e-6 counts
            }
        values["kernel"] = random.normal(0, (2 / np.prod(kernel[1:])) ** 0.5, kernel)
        arrays.append({key: value.astype("<f4") for key, value in values.items()})
    return arrays


def write_weights(path: Path, arrays: Sequence[dict[str, np.ndarray]], minor: int = 2, tail: bytes = b"") -> None:
    with path.open("wb") as file:
        file.write(struct.pack("<3i", 0, minor, 0) + struct.pack("<q" if minor >= 2 else "<i", 1234))
        for values in arrays:
            for value in values.values():
                file.write(value.tobytes())
        file.write(tail)


def convolve_slowly(x: np.ndarray, values: dict[str, np.ndarray], stride: int, padding: int, leaky: bool) -> np.ndarray:
    """x [C, H, W] through one Darknet convolution: kernel, (v − mean) / (sqrt(variance) + 1e-6), scale, bias, leaky."""
    kernel = values["kernel"].astype(np.float64)
    filters, channels, size, _ = kernel.shape
    groups = x.shape[0] // channels
    padded = np.pad(x.astype(np.float64), ((0, 0), (padding, padding), (padding, padding)))
    rows, columns = ((length + 2 * padding - size) // stride + 1 for length in x.shape[1:])
    out = np.zeros((filters, rows, columns))
    for f in range(filters):
        first = f // (filters // groups) * channels
        for row in range(rows):
            for column in range(columns):
                window = padded[
                    first : first + channels,
                    row * stride : row * stride + size,
                    column * stride : column * stride + size,
                ]
                value = (window * kernel[f]).sum()
                if "scale" in values:
                    deviation = float(values["variance"][f]) ** 0.5 + 1e-6
                    value = (value - values["mean"][f]) / deviation * values["scale"][f]
                value += values["bias"][f]
                out[f, row, column] = 0.1 * value if leaky and value < 0 else value
    return out


def max_pool_slowly(x: np.ndarray, kernel: int, stride: int, padding: int) -> np.ndarray:
    """forward_maxpool_layer: windows start padding // 2 before the map; what lies outside never wins."""
    channels, height, width = x.shape
    rows, columns = ((length + padding - kernel) // stride + 1 for length in (height, width))
    out = np.full((channels, rows, columns), -np.inf)
    for c in range(channels):
        for row in range(rows):
            for column in range(columns):
                for dy in range(kernel):
                    for dx in range(kernel):
                        y, z = row * stride + dy - padding // 2, column * stride + dx - padding // 2
                        if 0 <= y < height and 0 <= z < width:
                            out[c, row, column] = max(out[c, row, column], x[c, y, z])
    return out


def reorg_slowly(x: np.ndarray, stride: int) -> np.ndarray:
    """reorg_cpu as the layer calls it: the flat map read as one of c/s² channels and s times the height and width."""
    channels, height, width = x.shape
    flat, out = x.reshape(-1), np.zeros(x.size)
    fewer = channels // stride**2
    for c in range(channels):
        for row in range(height):
            for column in range(width):
                offset, wide_channel = c // fewer, c % fewer
                wide_row, wide_column = row * stride + offset // stride, column * stride + offset % stride
                source = wide_column + width * stride * (wide_row + height * stride * wide_channel)
                out[column + width * (row + height * c)] = flat[source]
    return out.reshape(channels * stride**2, height // stride, width // stride)
