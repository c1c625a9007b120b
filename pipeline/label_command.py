"""`distill label` from its request to its result: open or make the store, then label what is left."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
import zarr

from data.errors import RequestError, WorkLeftError
from data.pictures import resolve_roots, root_label
from data.store.address import open_place
from data.store.reader import LabelStore
from pipeline.interrupt import Interruption, stop_on_warning
from pipeline.label import rejected_pictures
from pipeline.label_estimate import estimate
from pipeline.label_input import paths_of_rows
from pipeline.label_plan import LabelRequest, list_pictures, make_teacher
from pipeline.label_store import open_or_create
from pipeline.model_source import LoadedDetector, load_detector_source
from pipeline.progress import Progress, SilentProgress, show_progress
from pipeline.shard_queue import ShardQueue, starting_point
from pipeline.store_roots import remember_roots, remembered_roots
from pipeline.worker import WorkerOptions, cores, label_what_is_left
from pipeline.worker_log import WorkerLog, worker_name
from stages.device import resolve_device
from stages.label.teacher import Teacher

LISTED = 10
ALONE = WorkerOptions()


def run_label(request: LabelRequest, options: WorkerOptions = ALONE, *, dry_run: bool = False) -> dict[str, Any]:
    """Label the pictures asked for into the store asked for; returns what was done, with a "text" for people.

    Raises RequestError before anything is written where the request can't be served, WorkLeftError where something is
    left.
    """
    if dry_run:
        source = load_teacher_source(request)
        return estimate(request, source, list_pictures(request))
    return label_as_worker(request, options, stop_on_warning)


def label_as_worker(
    request: LabelRequest, options: WorkerOptions, warnings: Callable[[], AbstractContextManager[Interruption]]
) -> dict[str, Any]:
    """`run_label` in a process that hears by `warnings` when it is to stop; raises as it does."""
    began = time.monotonic()
    source = load_teacher_source(request)
    worker = worker_name()
    place = open_place(request.store)
    with place.claims(worker, options.claim_expiry_s) as claims:
        store = open_or_create(request, source, options, claims)
        roots = _roots(store, request)
        path_of = paths_of_rows(store, roots)
        remember_roots(place, roots)
        place.clean_staging()
        teacher = ready_teacher(request, source, store)
        finished = sum(store.pictures_of(shard) for shard in store.finished_shards())
        with (
            _shown(options, store.pictures, finished) as progress,
            warnings() as interruption,
        ):
            queue = ShardQueue(
                store,
                claims,
                progress,
                WorkerLog(place, worker),
                start=starting_point(alone=not claims.names()),
                deadline=None if options.time_limit_s is None else began + options.time_limit_s,
            )
            threads = min(cores(options.share), max(1, torch.get_num_threads()))
            label_what_is_left(
                store,
                path_of,
                teacher,
                queue,
                among_many=options.among_many,
                decode_threads=threads,
                interruption=interruption,
            )
    done = {
        "store": str(request.store),
        "pictures": store.pictures,
        "labelled_now": queue.pictures - queue.rejected,
        "shards": store.shard_count,
        "shards_now": len(queue.done),
        "seconds": round(queue.seconds, 3),
        "pictures_per_second": round(queue.pictures / max(queue.seconds, 1e-9), 2),
        "device": store.attributes.run.device,
        "precision": store.attributes.run.precision,
    }
    if options.among_many:
        return done | {"left": len(queue.left()), "text": _text_of_one(store, queue)}
    rejected = list(rejected_pictures(store))
    require_some_labelled(store, rejected)
    return done | {
        "rejected": [{"key": key, "reason": reason} for key, reason in rejected],
        "text": whole_text(store, queue.pictures - queue.rejected, queue.seconds, rejected),
    }


def _shown(options: WorkerOptions, pictures: int, finished: int) -> AbstractContextManager[Progress]:
    return (
        nullcontext(SilentProgress()) if options.quiet else show_progress("labelling", pictures, "pictures", finished)
    )


def _roots(store: LabelStore, request: LabelRequest) -> dict[str, Path]:
    """Where every picture that is not labelled yet lies; with `add` the others may lie where they did, or nowhere."""
    if not request.add:
        return resolve_roots(store.root_labels, request.images)
    given = {root_label(picture.key) for picture in list_pictures(request)}
    roots = remembered_roots(store.place) | resolve_roots(given, request.images)
    left = (slice(first, first + count) for first, count in map(store.shard_range, store.pending_shards()))
    needed = {root_label(key) for rows in left for key in store.manifest.keys[rows] if key}
    if needed - roots.keys():
        raise RequestError(
            f"{store.path} is not complete, and where its pictures {', '.join(sorted(needed - roots.keys()))}/… are is "
            "not known: give their folder too"
        )
    return roots


def load_teacher_source(request: LabelRequest) -> LoadedDetector:
    """The teacher's detector, which must have the taps asked for."""
    source = load_detector_source(request.teacher, request.cfg, request.names)
    source.detector.check_taps(request.features)
    return source


def ready_teacher(request: LabelRequest, source: LoadedDetector, store: LabelStore) -> Teacher:
    """The teacher on its device, as the store's settings say; this process computes with the store's threads."""
    run = store.attributes.run
    torch.set_num_threads(run.threads)
    zarr.config.set({"threading.max_workers": run.threads, "async.concurrency": run.threads})
    device = resolve_device(request.device if request.device != "auto" else run.device)
    return make_teacher(source, store.attributes, device, tuple(store.features))


def require_some_labelled(store: LabelStore, rejected: list[tuple[str, str]]) -> None:
    """WorkLeftError where every picture of the store was rejected."""
    if len(rejected) == store.pictures:
        raise WorkLeftError(
            f"all {store.pictures} pictures were rejected (the first: {rejected[0][0]}: {rejected[0][1]}); nothing can "
            "be learnt from this store"
        )


def whole_text(store: LabelStore, labelled: int, seconds: float, rejected: list[tuple[str, str]]) -> str:
    whole = f"{store.path}: {store.pictures - len(rejected)} of {store.pictures} pictures in {store.shard_count} shards"
    lines = [f"{whole}; {labelled} labelled now, in {seconds:.1f} s"]
    if rejected:
        lines.append(f"{len(rejected)} rejected:")
        lines += [f"  {key}: {reason}" for key, reason in rejected[:LISTED]]
        if len(rejected) > LISTED:
            lines.append(f"  and {len(rejected) - LISTED} more, in {store.path}/ledger")
    return "\n".join(lines)


def _text_of_one(store: LabelStore, queue: ShardQueue) -> str:
    left = len(queue.left())
    with_others = f"; {left} are with other workers" if left else ""
    return (
        f"{store.path}: {len(queue.done)} of {store.shard_count} shards by this worker, {queue.pictures} pictures in "
        f"{queue.seconds:.1f} s{with_others}"
    )
