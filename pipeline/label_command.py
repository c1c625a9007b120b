"""`distill label` from its request to its result: open or make the store, then label what is left."""

import sys
from dataclasses import replace
from typing import Any

import torch

from data.errors import RequestError, WorkLeftError
from data.pictures import Picture, resolve_roots, root_label
from data.store.create import create_store
from data.store.manifest import require_same_pictures
from data.store.reader import LabelStore
from data.store.schema import require_same_labels
from data.store.work import clean_staging
from pipeline.interrupt import stop_on_warning
from pipeline.label import label_shards, rejected_pictures
from pipeline.label_estimate import estimate
from pipeline.label_plan import (
    LabelRequest,
    check_resumed_run,
    differing_versions,
    expected_manifest,
    feature_shapes,
    hash_pictures,
    list_pictures,
    make_teacher,
    resolve_attributes,
)
from pipeline.model_source import LoadedDetector, load_detector_source
from pipeline.progress import show_progress
from pipeline.store_roots import remember_roots
from stages.device import resolve_device

LISTED = 10


def run_label(request: LabelRequest, *, dry_run: bool) -> dict[str, Any]:
    """Label the pictures asked for into the store asked for; returns what was done, with a "text" for people.

    Raises RequestError before anything is written where the request can't be served, WorkLeftError where something is
    left.
    """
    source = load_detector_source(request.teacher, request.cfg, request.names)
    source.detector.check_taps(request.features)
    pictures = list_pictures(request)
    if dry_run:
        return estimate(request, source, pictures)
    store = open_or_create(request, source, pictures)
    remember_roots(request.store, resolve_roots({root_label(picture.key) for picture in pictures}, request.images))
    clean_staging(request.store)

    run = store.attributes.run
    torch.set_num_threads(run.threads)
    device = resolve_device(request.device if request.device != "auto" else run.device)
    teacher = make_teacher(source, store.attributes, device, tuple(store.features))
    pending = sum(store.shard_range(shard)[1] for shard in store.pending_shards())
    with (
        show_progress("labelling", len(store), "pictures", len(store) - pending) as progress,
        stop_on_warning() as interruption,
    ):
        result = label_shards(
            store,
            pictures,
            teacher,
            decode_threads=max(1, torch.get_num_threads()),
            progress=progress,
            interruption=interruption,
        )
    rejected = list(rejected_pictures(store))
    if len(rejected) == len(store):
        raise WorkLeftError(
            f"all {len(store)} pictures were rejected (the first: {rejected[0][0]}: {rejected[0][1]}); nothing can be "
            "learnt from this store"
        )
    return {
        "store": str(request.store),
        "pictures": len(store),
        "labelled_now": result.labelled,
        "rejected": [{"key": key, "reason": reason} for key, reason in rejected],
        "shards": store.shard_count,
        "shards_now": result.shards_done,
        "seconds": round(result.seconds, 3),
        "pictures_per_second": round((result.labelled + result.rejected) / max(result.seconds, 1e-9), 2),
        "device": run.device,
        "precision": run.precision,
        "text": _text(store, result.labelled, result.seconds, rejected),
    }


def open_or_create(request: LabelRequest, source: LoadedDetector, pictures: list[Picture]) -> LabelStore:
    """The store of this request: the one that was begun, if it is of the same request, or a new one."""
    attributes = resolve_attributes(request, source, len(pictures))
    if not (request.store / "zarr.json").exists():
        with show_progress("hashing", len(pictures), "pictures") as progress:
            manifest = hash_pictures(pictures, attributes.run.threads, progress)
        shapes = feature_shapes(request, source, attributes.input.height, attributes.input.width)
        create_store(request.store, attributes, manifest, shapes)
        return LabelStore.open(request.store)

    store = LabelStore.open(request.store)
    if request.shard_size is None:
        attributes = replace(attributes, shard_size=store.attributes.shard_size)
    require_same_labels(store.attributes, attributes, str(request.store))
    if set(store.features) != set(request.features):
        raise RequestError(
            f"{request.store} holds the feature maps {sorted(store.features) or 'of no layer'}, asked are "
            f"{sorted(request.features) or 'none'}. Give the same --features, or label into a new store"
        )
    require_same_pictures(store.manifest, expected_manifest(pictures, store.manifest), str(request.store))
    check_resumed_run(store, request)
    if store.pending_shards():
        for name, (then, now) in differing_versions(store).items():
            print(
                f"distill: {request.store} was begun with {name} {then}, this is {now}: rows made now agree with the "
                "older ones within tolerance, not bit for bit",
                file=sys.stderr,
            )
    return store


def _text(store: LabelStore, labelled: int, seconds: float, rejected: list[tuple[str, str]]) -> str:
    whole = f"{store.path}: {len(store) - len(rejected)} of {len(store)} pictures in {store.shard_count} shards"
    lines = [f"{whole}; {labelled} labelled now, in {seconds:.1f} s"]
    if rejected:
        lines.append(f"{len(rejected)} rejected:")
        lines += [f"  {key}: {reason}" for key, reason in rejected[:LISTED]]
        if len(rejected) > LISTED:
            lines.append(f"  and {len(rejected) - LISTED} more, in {store.path}/ledger")
    return "\n".join(lines)
