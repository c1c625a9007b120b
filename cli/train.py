"""`distill train`: train a detector from stores, from annotations, or from both."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cli.choices import STORE, ResizeMode


class Model(StrEnum):
    f_yolo = "f-yolo"
    tiny_yolo = "tiny-yolo"
    yolov2 = "yolov2"


class Augmentation(StrEnum):
    none = "none"
    photometric = "photometric"
    full = "full"


class AnnotationFormat(StrEnum):
    voc = "voc"
    coco = "coco"
    yolo = "yolo"


def train(
    run: Annotated[Path, typer.Option(help="Folder of the run, new unless --resume.")],
    store: Annotated[
        list[str] | None,
        typer.Option(metavar=STORE, help="Store of soft labels; without one nothing is distilled."),
    ] = None,
    store_weight: Annotated[
        list[float] | None,
        typer.Option(help="Of each --store's loss, in order; the average of a picture's stores if not given."),
    ] = None,
    images: Annotated[list[str] | None, typer.Option(help="Folders of pictures, or where a store's are now.")] = None,
    annotations: Annotated[Path | None, typer.Option(help="VOC or YOLO folder, or COCO JSON.")] = None,
    annotation_format: Annotated[AnnotationFormat | None, typer.Option(help="Recognised if not given.")] = None,
    drop_other_classes: Annotated[
        bool, typer.Option("--drop-other-classes", help="Leave annotated objects of unknown classes out.")
    ] = False,
    names: Annotated[
        Path | None, typer.Option(help="Class names, one per line; the store's or the annotations' own.")
    ] = None,
    train_list: Annotated[
        list[Path] | None, typer.Option(help="Train on these pictures only (ImageSets list).")
    ] = None,
    val_list: Annotated[list[Path] | None, typer.Option(help="Validate on these.")] = None,
    test_list: Annotated[list[Path] | None, typer.Option(help="Never train on these.")] = None,
    val_fraction: Annotated[
        float, typer.Option(min=0, max=0.9, help="Share held out where no --val-list is given.")
    ] = 0.1,
    model: Annotated[Model, typer.Option(help="Architecture.")] = Model.f_yolo,
    width: Annotated[float, typer.Option(help="Factor on the channels.")] = 1.0,
    reading: Annotated[str, typer.Option(help="F-YOLO's reading, A or B (docs/networks.md).")] = "A",
    merge: Annotated[str, typer.Option(help="F-YOLO merges by stack or max-pool.")] = "stack",
    merged: Annotated[str, typer.Option(help="F-YOLO's first and last merged level.")] = "3-7",
    extra_1x1: Annotated[bool, typer.Option("--extra-1x1/--no-extra-1x1", help="F-YOLO's last 1×1 layers.")] = True,
    anchors: Annotated[
        str, typer.Option(help="auto (store's, else the model's), model, kmeans, or 'w,h w,h …' in cells.")
    ] = "auto",
    initial_weights: Annotated[
        Path | None, typer.Option(help="Darknet weights to begin with, as far as they fit.")
    ] = None,
    initial_cfg: Annotated[Path | None, typer.Option(help="The cfg of --initial-weights.")] = None,
    epochs: Annotated[int, typer.Option(min=1)] = 160,
    batch_size: Annotated[int, typer.Option(min=1)] = 32,
    input_size: Annotated[int | None, typer.Option(help="Side of the input; the store's, else 416.")] = None,
    multi_scale: Annotated[
        bool, typer.Option("--multi-scale", help="Inputs of 320 to 608, anew every 10 batches.")
    ] = False,
    resize: Annotated[ResizeMode | None, typer.Option(help="The store's, else letterbox.")] = None,
    augment: Annotated[Augmentation, typer.Option(help="Photometric, or geometric as well.")] = Augmentation.full,
    flip: Annotated[bool, typer.Option("--flip/--no-flip", help="Mirror half of the pictures.")] = True,
    labelled_share: Annotated[
        float | None, typer.Option(min=0, max=1, help="Share of labelled pictures in a batch.")
    ] = None,
    learning_rate: Annotated[float, typer.Option(min=0)] = 1e-3,
    momentum: Annotated[float, typer.Option(min=0, max=1)] = 0.9,
    weight_decay: Annotated[float, typer.Option(min=0)] = 5e-4,
    clip_norm: Annotated[float, typer.Option(min=0, help="Largest L2 norm of the gradient; 0 for any.")] = 20.0,
    ema: Annotated[float | None, typer.Option(min=0, max=1, help="Decay of a moving average of the weights.")] = None,
    distillation_weight: Annotated[float, typer.Option(min=0, help="λ_D; 0 trains without the teacher's terms.")] = 1.0,
    objectness_scaling: Annotated[bool, typer.Option("--objectness-scaling/--no-objectness-scaling")] = True,
    distill_objectness: Annotated[bool, typer.Option("--distill-objectness/--no-distill-objectness")] = True,
    distill_box: Annotated[bool, typer.Option("--distill-box/--no-distill-box")] = True,
    distill_class: Annotated[bool, typer.Option("--distill-class/--no-distill-class")] = True,
    sync_batch_norm: Annotated[
        bool, typer.Option("--sync-batch-norm/--no-sync-batch-norm", help="Statistics of all devices' pictures.")
    ] = True,
    validate_every: Annotated[int | None, typer.Option(min=1, help="Epochs; a twentieth of all if not given.")] = None,
    seed: Annotated[int, typer.Option()] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    devices: Annotated[int, typer.Option(min=1, help="Train on so many GPUs, or CPU processes, at once.")] = 1,
    precision: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    workers: Annotated[int | None, typer.Option(min=1, help="Threads that read pictures.")] = None,
    image_cache: Annotated[float, typer.Option(min=0, help="Decoded pictures kept in memory, in GB.")] = 2.0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run as it was begun.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The result as JSON on standard output.")] = False,
) -> None:
    """Train a student from a store of soft labels (the teacher is not needed), or any model without one."""
    from cli.output import say
    from pipeline.launch import launched, run_ranks
    from pipeline.train_request import TrainRequest, parse_levels

    request = TrainRequest(
        stores=tuple(store or ()),
        store_weights=tuple(store_weight or ()),
        images=tuple(images or ()),
        annotations=None if annotations is None else str(annotations),
        annotation_format=None if annotation_format is None else annotation_format.value,
        drop_other_classes=drop_other_classes,
        names=None if names is None else str(names),
        train_lists=tuple(str(path) for path in train_list or ()),
        val_lists=tuple(str(path) for path in val_list or ()),
        test_lists=tuple(str(path) for path in test_list or ()),
        val_fraction=val_fraction,
        model=model.value,
        width=width,
        reading=reading,
        merge=merge,
        merged=parse_levels(merged),
        extra_1x1=extra_1x1,
        anchors=anchors,
        initial_weights=None if initial_weights is None else str(initial_weights),
        initial_cfg=None if initial_cfg is None else str(initial_cfg),
        epochs=epochs,
        batch_size=batch_size,
        input_size=input_size,
        multi_scale=multi_scale,
        resize=None if resize is None else resize.value,
        augment=augment.value,
        flip=flip,
        labelled_share=labelled_share,
        learning_rate=learning_rate,
        momentum=momentum,
        weight_decay=weight_decay,
        clip_norm=clip_norm,
        ema=ema,
        distillation_weight=distillation_weight,
        objectness_scaling=objectness_scaling,
        distill_objectness=distill_objectness,
        distill_box=distill_box,
        distill_class=distill_class,
        sync_batch_norm=sync_batch_norm,
        validate_every=validate_every,
        seed=seed,
        device=device,
        precision=precision,
        workers=workers,
        image_cache_gb=image_cache,
    )
    if devices > 1 and not launched(devices):
        run_ranks(devices, sys.argv[1:])
        return
    from pipeline.train_command import run_training

    result = run_training(request, run, resume=resume)
    if result:
        say(result, as_json)
