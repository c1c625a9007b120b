"""What a label command asks for, resolved: pictures, teacher, settings, and the store they belong to."""

import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import torch

from data.errors import RequestError
from data.pictures import Picture, find_pictures
from data.store.create import codec_pipeline
from data.store.layout import FeatureShape, default_shard_size
from data.store.place import Address
from data.store.reader import LabelStore
from data.store.schema import (
    TEACHER_STRIDE,
    FmNmsAttributes,
    InputAttributes,
    RunAttributes,
    StoreAttributes,
    TeacherAttributes,
)
from data.views import FILL, Resize
from pipeline.input_size import check_input_size
from pipeline.model_source import LoadedDetector
from stages.device import resolve_device, resolve_precision
from stages.label.teacher import Teacher, choose_classes
from stages.networks.layers import map_shapes

INTERPOLATION = "bilinear, corners aligned"
"""How `data.views.render` samples, after Darknet's resize_image; recorded, and compared on resume."""

RECORDED_PACKAGES = ("distill", "torch", "torchvision", "zarr", "numcodecs", "numpy", "pillow")


DEFAULT_FM_NMS = FmNmsAttributes("local-max", 3, 0.01)


@dataclass(frozen=True, slots=True)
class LabelRequest:
    """The flags of `distill label`; None and "auto" are resolved by `resolve_attributes`."""

    images: tuple[str, ...]
    store: Address
    teacher: Path
    cfg: Path | None = None
    names: Path | None = None
    features: tuple[str, ...] = ()
    fm_nms: FmNmsAttributes = DEFAULT_FM_NMS
    classes: tuple[str, ...] = ()
    input_size: int | None = None
    resize: Resize | None = None
    shard_size: int | None = None
    device: str = "auto"
    precision: str = "auto"
    batch_size: int | None = None
    threads: int | None = None
    limit: int | None = None
    deduplicate: bool = False
    add: bool = False


def list_pictures(request: LabelRequest) -> list[Picture]:
    """The pictures asked for, in manifest order. Raises RequestError where there are none."""
    pictures = find_pictures(request.images)
    return pictures[: request.limit] if request.limit is not None else pictures


def resolve_attributes(
    request: LabelRequest,
    teacher: LoadedDetector,
    pictures: int,
    share: int = 1,
) -> StoreAttributes:
    """Every setting as the store records it, with `auto` resolved for this machine.

    pictures: how many there are. share: processes that will share this machine's cores.

    Raises RequestError for a setting that no label could be made with, before anything is written.
    """
    asked = request.input_size
    height, width = (teacher.height, teacher.width) if asked is None else (asked, asked)
    for side in (height, width):
        check_input_size(side)
    if teacher.detector.stride != TEACHER_STRIDE:
        raise RequestError(
            f"{teacher.file} has a grid with a stride of {teacher.detector.stride}; soft labels are kept for YOLOv2's "
            f"stride of {TEACHER_STRIDE}"
        )
    window = request.fm_nms.window
    if window < 1 or window % 2 == 0:
        raise RequestError(f"--fm-nms-window {window}: give an odd number of cells, such as 3")
    device = resolve_device(request.device)
    chosen = choose_classes(teacher.detector.classes, request.classes)
    attributes = StoreAttributes(
        shard_size=request.shard_size or 1,
        manifest_sha256="",  # filled in when the store is created
        teacher=TeacherAttributes(
            teacher.name,
            teacher.weights_sha256,
            teacher.cfg_sha256,
            teacher.detector.anchors,
            tuple(teacher.detector.classes[i] for i in chosen),
        ),
        input=InputAttributes(height, width, request.resize or teacher.resize, INTERPOLATION, FILL, "RGB"),
        fm_nms=request.fm_nms,
        run=RunAttributes(
            device=device.type,
            precision=resolve_precision(request.precision, device),
            batch_size=request.batch_size or (64 if device.type == "cuda" else 8),
            threads=request.threads or max(1, torch.get_num_threads() // share),
            memory_format="channels_last",
            codec_pipeline=codec_pipeline(),
            versions={"python": platform.python_version()} | {name: version(name) for name in RECORDED_PACKAGES},
        ),
    )
    if request.shard_size is None:
        shapes = feature_shapes(request, teacher, height, width)
        size = default_shard_size(pictures, attributes.label_shape, shapes)
        attributes = replace(attributes, shard_size=size)
    return attributes


def feature_shapes(request: LabelRequest, teacher: LoadedDetector, height: int, width: int) -> dict[str, FeatureShape]:
    """Tap to [C, H', W'] of the feature maps asked for, at an input of this size."""
    shapes = map_shapes(teacher.detector.layers)
    return {
        tap: (shapes[tap].channels, height // shapes[tap].stride, width // shapes[tap].stride)
        for tap in request.features
    }


def check_resumed_run(store: LabelStore, request: LabelRequest) -> None:
    """Later rows are made with the run settings recorded in the store.

    RequestError where the command names another device type, precision, batch size or thread count.
    """
    run = store.attributes.run
    asked = {
        "--device": (None if request.device == "auto" else torch.device(request.device).type, run.device),
        "--precision": (None if request.precision == "auto" else request.precision, run.precision),
        "--batch-size": (request.batch_size, run.batch_size),
        "--threads": (request.threads, run.threads),
    }
    for flag, (wanted, recorded) in asked.items():
        if wanted is not None and wanted != recorded:
            raise RequestError(
                f"{flag} {wanted}: {request.store} was begun with {recorded}, and its rows must not depend on when "
                "they were made. Leave the flag out, or label into a new store"
            )


def require_able(store: LabelStore) -> None:
    """RequestError where this process can't make rows as the store's are: no such device, another codec pipeline."""
    run = store.attributes.run
    if run.codec_pipeline != codec_pipeline():
        raise RequestError(
            f"{store.path} is written by zarr's codec pipeline {run.codec_pipeline}, not by {codec_pipeline()}: set "
            "ZARR_CODEC_PIPELINE__PATH to the former"
        )
    if run.device == "cuda" and not torch.cuda.is_available():
        raise RequestError(
            f"{store.path} was begun on a CUDA device and this machine has none; go on where there is one, or label "
            "into a new store"
        )


def differing_versions(store: LabelStore) -> dict[str, tuple[str, str]]:
    """Package to (version recorded in the store, version here), where they differ."""
    recorded = store.attributes.run.versions
    here = {"python": platform.python_version()} | {name: version(name) for name in RECORDED_PACKAGES}
    return {name: (recorded.get(name, "none"), here[name]) for name in here if recorded.get(name) != here[name]}


def make_teacher(
    source: LoadedDetector, attributes: StoreAttributes, device: torch.device, taps: Sequence[str]
) -> Teacher:
    """The teacher that these attributes describe."""
    return Teacher(
        source.detector,
        device=device,
        precision=resolve_precision(attributes.run.precision, device),
        memory_format=torch.channels_last,
        fm_nms=attributes.fm_nms,
        classes=attributes.teacher.classes,
        taps=taps,
    )
