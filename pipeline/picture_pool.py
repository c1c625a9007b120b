"""Every picture a training could use, with its soft labels where a store has some, before any is chosen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
    """key: the first store's for a picture of a store, else that of `find_pictures`. soft: one for each store that
    labelled it."""

    key: str
    path: Path
    soft: tuple[StoredLabels, ...] = ()


def open_stores(request: TrainRequest) -> list[LabelStore]:
    """The stores of the request, which must be of one class list and have a finished shard; RequestError otherwise."""
    twice = [path for number, path in enumerate(request.stores) if path in request.stores[:number]]
    if twice:
        raise RequestError(f"--store {twice[0]} is named twice; a store's say is set by --store-weight")
    stores = [LabelStore.open(path) for path in request.stores]
    for store in stores:
        if not store.finished_shards():
            raise RequestError(f"{store.path} has no finished shard; complete it with the label command that made it")
        if sorted(store.attributes.teacher.classes) != sorted(stores[0].attributes.teacher.classes):
            raise RequestError(
                f"{store.path} and {stores[0].path} have teachers of different classes; train from either"
            )
    return stores


def gather_pictures(request: TrainRequest, stores: Sequence[LabelStore], notes: list[str]) -> list[PoolPicture]:
    """The stores' pictures and those of --images, sorted by key; what is absent goes into the notes.

    A picture that both have is the store's; one that several stores have learns from each, by weight. Raises
    RequestError where there is none, where a store's pictures can't be found, and where one key names two pictures:
    truth, soft labels and random draws are all found by it.
    """
    pool: dict[Path, PoolPicture] = {}
    roots = _roots(request, stores)
    for number, store in enumerate(stores):
        weight = request.store_weights[number] if request.store_weights else None
        order = [store.attributes.teacher.classes.index(name) for name in stores[0].attributes.teacher.classes]
        for path, picture in _of_store(store, roots[number], number, order, weight, notes).items():
            first = pool.setdefault(path, picture)
            if first is not picture:
                pool[path] = replace(first, soft=first.soft + picture.soft)
    if len(stores) > 1:
        several = sum(len(picture.soft) > 1 for picture in pool.values())
        notes.append(f"{several} of {len(pool)} pictures of {len(stores)} stores have soft labels of several")
    for found in find_pictures(request.images) if request.images else ():
        pool.setdefault(found.path.resolve(), PoolPicture(found.key, found.path))
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


def _roots(request: TrainRequest, stores: Sequence[LabelStore]) -> list[dict[str, Path]]:
    """Of each store, root label to folder. RequestError where one is not known.

    The labels of all stores are looked for in --images at once: one folder must not stand for two.
    """
    if request.images and stores:
        return [resolve_roots(set().union(*(store.root_labels for store in stores)), request.images)] * len(stores)
    found = [remembered_roots(store.place) for store in stores]
    for store, roots in zip(stores, found, strict=True):
        if store.root_labels - roots.keys():
            raise RequestError(f"where the pictures of {store.path} are is not known; give their folder with --images")
    return found


def _of_store(
    store: LabelStore,
    roots: Mapping[str, Path],
    number: int,
    order: Sequence[int],
    weight: float | None,
    notes: list[str],
) -> dict[Path, PoolPicture]:
    """Its pictures that are there, by their real paths. order: the store's own index of each class of the training."""
    with show_progress("reading soft labels", len(store.finished_shards()), "shards") as progress:
        table = load_kept_slots(store, lambda done, total: progress.count(done, total))
    if list(order) != sorted(order):
        table = table.with_classes(order)
    attributes = store.attributes
    grid = Grid(attributes.teacher.anchors, *attributes.label_shape[2:])
    pictures: dict[Path, PoolPicture] = {}
    absent = []
    for row, key in enumerate(store.manifest.keys):
        if not key:
            continue  # a gap
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
            teacher=number,
            weight=weight,
        )
        pictures[path.resolve()] = PoolPicture(key, path, (soft,) if table.status[row] == LABELLED else ())
    if not pictures:
        place = roots[root_label(absent[0])]
        raise RequestError(
            f"none of the {store.pictures} pictures of {store.path} is there: {absent[0]} was looked for in {place}. "
            "Give their folder with --images"
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
