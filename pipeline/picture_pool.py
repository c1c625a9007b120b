"""Every picture a training could use, with its soft labels where a store has some, before any is chosen."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from data.errors import RequestError
from data.pictures import find_pictures, relative_path, resolve_roots, root_label
from data.store.layout import LABELLED
from data.store.reader import LabelStore
from data.store.slots import load_kept_slots
from pipeline.progress import show_progress
from pipeline.store_roots import remembered_roots
from pipeline.train_request import TrainRequest
from stages.student.samples import StoredLabels
from stages.student.soft_targets import Grid

NAMED = 5


@dataclass(frozen=True, slots=True)
class PoolPicture:
    """key: the store's for a picture of a store, else that of `find_pictures`. soft: None if no store labelled it."""

    key: str
    path: Path
    soft: StoredLabels | None


def open_stores(request: TrainRequest) -> list[LabelStore]:
    """The stores of the request, which must be of one class list and have a finished shard; RequestError otherwise."""
    stores = [LabelStore.open(path) for path in request.stores]
    for store in stores:
        if not store.finished_shards():
            raise RequestError(f"{store.path} has no finished shard; complete it with the label command that made it")
        if store.attributes.teacher.classes != stores[0].attributes.teacher.classes:
            raise RequestError(
                f"{store.path} and {stores[0].path} have teachers of different classes; train from either"
            )
    return stores


def gather_pictures(request: TrainRequest, stores: Sequence[LabelStore], notes: list[str]) -> list[PoolPicture]:
    """The stores' pictures and those of --images, sorted by key; what is absent goes into the notes.

    A picture that both have is the store's. Raises RequestError where there is none, where a store's pictures can't be
    found, where two stores have the same picture, and where one key names two pictures: truth, soft labels and random
    draws are all found by it.
    """
    pool: dict[Path, PoolPicture] = {}
    for store in stores:
        pictures = _of_store(request, store, notes)
        shared = pool.keys() & pictures.keys()
        if shared:
            raise RequestError(
                f"{min(shared)} is in {store.path} and in another --store; give stores of different pictures"
            )
        pool |= pictures
    for picture in find_pictures(request.images) if request.images else ():
        pool.setdefault(picture.path.resolve(), PoolPicture(picture.key, picture.path, None))
    if not pool:
        raise RequestError("there are no pictures to train on; give --store, or --images with --annotations")
    listed = sorted(pool.values(), key=lambda picture: picture.key)
    for one, other in pairwise(listed):
        if one.key == other.key:
            raise RequestError(
                f"{one.path} and {other.path} are both called {one.key}; give their folders names of their own, as "
                "NAME=FOLDER, to label or --images"
            )
    return listed


def _of_store(request: TrainRequest, store: LabelStore, notes: list[str]) -> dict[Path, PoolPicture]:
    labels = {root_label(key) for key in store.manifest.keys}
    roots = resolve_roots(labels, request.images) if request.images else remembered_roots(store.place)
    if labels - roots.keys():
        raise RequestError(f"where the pictures of {store.path} are is not known; give their folder with --images")
    with show_progress("reading soft labels", len(store.finished_shards()), "shards") as progress:
        table = load_kept_slots(store, lambda done, total: progress.count(done, total))
    attributes = store.attributes
    grid = Grid(attributes.teacher.anchors, *attributes.label_shape[2:])
    pictures: dict[Path, PoolPicture] = {}
    absent = []
    for row, key in enumerate(store.manifest.keys):
        path = roots[root_label(key)] / relative_path(key)
        if not path.exists():
            absent.append(key)
            continue
        soft = StoredLabels(
            table=table,
            row=row,
            digest=store.manifest.digests[row].tobytes(),
            grid=grid,
            resize=attributes.input.resize,
            height=attributes.input.height,
            width=attributes.input.width,
        )
        pictures[path.resolve()] = PoolPicture(key, path, soft if table.status[row] == LABELLED else None)
    if not pictures:
        place = roots[root_label(absent[0])]
        raise RequestError(
            f"none of the {len(store)} pictures of {store.path} is there: {absent[0]} was looked for in {place}. Give "
            "their folder with --images"
        )
    if absent:
        notes.append(f"{len(absent)} pictures of {store.path} are absent: {some(absent)}")
    if store.pending_shards():
        notes.append(
            f"{store.path} is not complete: {len(store.pending_shards())} of {store.shard_count} shards are missing"
        )
    return pictures


def some(names: Sequence[str]) -> str:
    """The first few names of a list, for a message."""
    return ", ".join(names[:NAMED]) + (", …" if len(names) > NAMED else "")
