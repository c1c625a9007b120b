"""Which pictures are trained on, which judge the training, and which are kept out of it."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from data.annotations import AnnotationSet, read_annotations
from data.darknet.cfg import read_names
from data.errors import RequestError
from data.pictures import Picture, find_pictures, relative_path, resolve_roots, root_label
from data.prefetch import map_ahead
from data.splits import assert_disjoint, read_list, select, split_by_seed
from data.store.layout import LABELLED
from data.store.reader import LabelStore
from data.store.slots import load_kept_slots
from pipeline.evaluate import EvaluationPicture
from pipeline.store_roots import remembered_roots
from pipeline.train_request import TrainRequest
from stages.student.samples import StoredLabels, TrainingPicture
from stages.student.soft_targets import Grid


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """The pictures of a run. `labelled` says of each training picture whether it is annotated. `validation` are
    annotated pictures, `held_out` those of a store without annotations; neither is trained on. `notes` tells a reader
    what was left out and why."""

    pictures: list[TrainingPicture]
    labelled: list[bool]
    validation: list[EvaluationPicture]
    held_out: list[TrainingPicture]
    annotations: AnnotationSet | None
    classes: tuple[str, ...]
    notes: list[str] = field(default_factory=list)


def open_stores(request: TrainRequest) -> list[LabelStore]:
    """The stores of the request, which must be of one class list and have a finished shard; RequestError otherwise."""
    stores = [LabelStore.open(Path(path)) for path in request.stores]
    for store in stores:
        if not store.finished_shards():
            raise RequestError(f"{store.path} has no finished shard; complete it with the label command that made it")
        if store.attributes.teacher.classes != stores[0].attributes.teacher.classes:
            raise RequestError(
                f"{store.path} and {stores[0].path} have teachers of different classes; train from either"
            )
    return stores


def build_training_set(request: TrainRequest, stores: Sequence[LabelStore]) -> TrainingSet:
    """Resolve roots, lists and annotations into the sets of a training.

    Raises RequestError where nothing is left to train on, or where a picture to train on and one to validate or test on
    are the same by content.
    """
    notes: list[str] = []
    stored = _stored_pictures(request, stores, notes)
    found = {picture.path.resolve(): picture for picture in find_pictures(request.images)} if request.images else {}
    pictures = {path: picture for path, (picture, _) in stored.items()} | {
        path: picture for path, picture in found.items() if path not in stored
    }
    if not pictures:
        raise RequestError("there are no pictures to train on; give --store, or --images with --annotations")
    listed = sorted(pictures.values(), key=lambda picture: picture.key)
    by_key = {picture.key: path for path, picture in pictures.items()}

    annotations = _annotations(request, stores)
    known: set[str] = set()
    if annotations is not None:
        keys = [picture.key for picture in listed]
        annotations = annotations.bind(keys)
        known = set(annotations.labelled(keys))
        absent = annotations.absent(keys)
        if absent:
            notes.append(f"{len(absent)} annotated pictures are absent: {_some(absent)}")
        notes.append(annotations.report.summary())

    def annotated(picture: Picture) -> bool:
        return picture.key in known

    validation = _listed(request.val_lists, listed, notes)
    tested = _listed(request.test_lists, listed, notes)
    kept_out = {picture.key for picture in (*validation, *tested)}
    training = _listed(request.train_lists, listed, notes) if request.train_lists else listed
    training = [picture for picture in training if picture.key not in kept_out]
    if not request.val_lists and request.val_fraction:
        pool = [picture for picture in training if annotated(picture)] or training
        chosen = set(split_by_seed((picture.key for picture in pool), request.val_fraction, request.seed)[1])
        validation = [picture for picture in pool if picture.key in chosen]
        training = [picture for picture in training if picture.key not in chosen]
    training = [p for p in training if annotated(p) or _has_label(stored, by_key[p.key])]
    if not training:
        raise RequestError(
            "no picture is left to train on: none is annotated or labelled by a store. Check --annotations, --store "
            "and the lists"
        )
    _require_disjoint(training, [*validation, *tested], stored, by_key)

    def trainable(picture: Picture) -> TrainingPicture:
        truth = partial(annotations.truth, picture.key) if annotations is not None and annotated(picture) else None
        path = by_key[picture.key]
        return TrainingPicture(picture.key, picture.path, truth, stored[path][1] if path in stored else None)

    validated = [p for p in validation if annotated(p)]
    return TrainingSet(
        pictures=[trainable(picture) for picture in training],
        labelled=[annotated(picture) for picture in training],
        validation=[EvaluationPicture(picture.key, picture.path) for picture in validated],
        held_out=[] if validated else [trainable(p) for p in validation if _has_label(stored, by_key[p.key])],
        annotations=annotations,
        classes=_classes(request, stores, annotations),
        notes=notes,
    )


def _stored_pictures(
    request: TrainRequest, stores: Sequence[LabelStore], notes: list[str]
) -> dict[Path, tuple[Picture, StoredLabels | None]]:
    """Absolute path to (picture, its soft labels) of every picture of the stores that is there now."""
    stored: dict[Path, tuple[Picture, StoredLabels | None]] = {}
    for store in stores:
        labels = {root_label(key) for key in store.manifest.keys}
        roots = resolve_roots(labels, request.images) if request.images else remembered_roots(store.path)
        missing = labels - roots.keys()
        if missing:
            raise RequestError(f"where the pictures of {store.path} are is not known; give their folder with --images")
        table = load_kept_slots(store)
        attributes = store.attributes
        grid = Grid(attributes.teacher.anchors, *attributes.label_shape[2:])
        absent = []
        for row, key in enumerate(store.manifest.keys):
            path = roots[root_label(key)] / relative_path(key)
            if not path.exists():
                absent.append(key)
                continue
            has_label = table.status[row] == LABELLED
            soft = StoredLabels(
                table=table,
                row=row,
                digest=store.manifest.digests[row].tobytes(),
                grid=grid,
                resize=attributes.input.resize,
                height=attributes.input.height,
                width=attributes.input.width,
            )
            stored[path.resolve()] = (Picture(key, path), soft if has_label else None)
        if absent:
            notes.append(f"{len(absent)} pictures of {store.path} are absent: {_some(absent)}")
        if store.pending_shards():
            notes.append(
                f"{store.path} is not complete: {len(store.pending_shards())} of {store.shard_count} shards are missing"
            )
    return stored


def _has_label(stored: Mapping[Path, tuple[Picture, StoredLabels | None]], path: Path) -> bool:
    return path in stored and stored[path][1] is not None


def _annotations(request: TrainRequest, stores: Sequence[LabelStore]) -> AnnotationSet | None:
    if request.annotations is None:
        return None
    wanted = list(stores[0].attributes.teacher.classes) if stores else _names(request)
    return read_annotations(request.annotations, request.annotation_format, wanted, request.drop_other_classes)


def _names(request: TrainRequest) -> list[str] | None:
    return list(read_names(Path(request.names))) if request.names else None


def _classes(request: TrainRequest, stores: Sequence[LabelStore], annotations: AnnotationSet | None) -> tuple[str, ...]:
    if stores:
        return stores[0].attributes.teacher.classes
    if annotations is None:
        raise RequestError("without a --store a training needs --annotations")
    return annotations.classes


def _listed(files: Sequence[str], pictures: Sequence[Picture], notes: list[str]) -> list[Picture]:
    by_key = {picture.key: picture for picture in pictures}
    chosen: dict[str, Picture] = {}
    for file in files:
        selection = select(read_list(file), by_key)
        chosen |= {key: by_key[key] for key in selection.keys}
        if selection.unknown:
            notes.append(f"{len(selection.unknown)} entries of {file} are absent: {_some(selection.unknown)}")
    return list(chosen.values())


def _require_disjoint(
    training: Sequence[Picture],
    judged: Sequence[Picture],
    stored: Mapping[Path, tuple[Picture, StoredLabels | None]],
    by_key: Mapping[str, Path],
) -> None:
    """Refuse pictures that are in both by content. A store's digests serve for its pictures; the rest is hashed."""
    if not judged:
        return

    def digest(picture: Picture) -> tuple[str, bytes]:
        soft = stored.get(by_key[picture.key], (None, None))[1]
        return picture.key, soft.digest if soft is not None else hashlib.sha256(picture.path.read_bytes()).digest()

    digests = dict(map_ahead(digest, [*training, *judged], threads=4, ahead=16))
    assert_disjoint(
        {picture.key: digests[picture.key] for picture in training},
        {picture.key: digests[picture.key] for picture in judged},
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
