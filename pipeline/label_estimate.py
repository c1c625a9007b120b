"""`distill label --dry-run`: what labelling would take, from a short probe of the teacher on the first pictures."""

import time
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from numcodecs import Zstd

from data.images import RejectedPictureError, decode
from data.pictures import Picture
from data.store.create import ZSTD_LEVEL
from data.store.layout import array_layouts, shard_count
from data.views import render, resize_view
from pipeline.label_plan import LabelRequest, feature_shapes, make_teacher, resolve_attributes
from pipeline.model_source import LoadedDetector
from stages.device import resolve_device, synchronize

PROBE_BATCHES = 3


def estimate(request: LabelRequest, source: LoadedDetector, pictures: Sequence[Picture]) -> dict[str, Any]:
    """Pictures, shards, files, bytes and time; nothing is written.

    The time is that of the teacher's fastest probe batch and the decoding beside it, whichever is slower; hashing and
    writing come on top. Bytes are the probe's rows compressed as the store compresses them.
    """
    attributes = resolve_attributes(request, source, len(pictures))
    features = feature_shapes(request, source, attributes.input.height, attributes.input.width)
    size = attributes.shard_size
    arrays = array_layouts(attributes, features)
    shards = shard_count(len(pictures), size)
    device = resolve_device(request.device)
    torch.set_num_threads(attributes.run.threads)
    teacher = make_teacher(source, attributes, device, request.features)

    decode_s: list[float] = []
    inputs = []
    for picture in pictures[: PROBE_BATCHES * attributes.run.batch_size]:
        began = time.perf_counter()
        try:
            pixels = decode(picture.path.read_bytes())
        except RejectedPictureError:
            continue
        rows, columns = pixels.shape[:2]
        view = resize_view(attributes.input.resize, rows, columns, attributes.input.height, attributes.input.width)
        inputs.append(torch.from_numpy(render(pixels, view)))
        decode_s.append(time.perf_counter() - began)
    teacher_s: list[float] = []
    compressed: list[int] = []
    for start in range(0, len(inputs), attributes.run.batch_size):
        batch = torch.stack(inputs[start : start + attributes.run.batch_size])
        began = time.perf_counter()
        output = teacher.label(batch)
        synchronize(device)
        teacher_s.append((time.perf_counter() - began) / len(batch))
        values = (output.soft_labels, *output.features.values())
        compressed.append(
            sum(len(Zstd(ZSTD_LEVEL).encode(np.ascontiguousarray(value.numpy()))) for value in values) // len(batch)
        )
    per_picture = max(min(teacher_s), float(np.median(decode_s)) / attributes.run.threads) if teacher_s else 0.0
    row_bytes = int(np.median(compressed)) if compressed else 0
    result: dict[str, Any] = {
        "pictures": len(pictures),
        "shard_size": size,
        "shards": shards,
        "files": shards * (len(arrays) + 1) + len(arrays) + 3 + bool(features),
        "bytes": row_bytes * len(pictures),
        "bytes_uncompressed": 2 * len(pictures) * sum(prod(a.row_shape) for a in arrays if a.dtype == "float16"),
        "seconds": round(per_picture * len(pictures), 1),
        "probed_pictures": len(inputs),
        "device": attributes.run.device,
        "precision": attributes.run.precision,
        "batch_size": attributes.run.batch_size,
    }
    result["text"] = (
        f"{result['pictures']} pictures would make {shards} shards of {size} ({result['files']} files, "
        f"about {result['bytes'] / 1e6:.1f} MB) in about {result['seconds']:.0f} s on {attributes.run.device} in "
        f"{attributes.run.precision}, by a probe of {len(inputs)} pictures. Nothing was written."
    )
    return result
