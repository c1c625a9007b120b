"""What a training learns from and what it is judged by: pictures with their truth and soft labels."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from data.annotations import AnnotationSet, read_annotations
from data.darknet.cfg import read_names
from data.errors import RequestError
from data.images import MAX_SIDE
from data.store.canonical import canonical_json
from data.store.reader import LabelStore
from pipeline.evaluate import EvaluationPicture
from pipeline.partition import partition
from pipeline.picture_pool import PoolPicture, gather_pictures, some
from pipeline.train_request import TrainRequest
from stages.student.samples import TrainingPicture


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """The pictures of a run. `labelled` says of each training picture whether it is annotated. `validation` are
    annotated pictures, `held_out` those of a store without annotations; neither is trained on. `fingerprint` is the
    hex digest of what must not change when the run goes on. `notes` tells a reader what was left out and why."""

    pictures: list[TrainingPicture]
    labelled: list[bool]
    validation: list[EvaluationPicture]
    held_out: list[TrainingPicture]
    annotations: AnnotationSet | None
    classes: tuple[str, ...]
    fingerprint: str
    notes: list[str] = field(default_factory=list)


def build_training_set(request: TrainRequest, stores: Sequence[LabelStore]) -> TrainingSet:
    """Resolve roots, lists and annotations into the sets of a training.

    Without distillation no picture has soft labels. Raises RequestError where nothing is left to train on or to
    validate by, and as `gather_pictures` and `partition` do.
    """
    notes: list[str] = []
    pool = gather_pictures(request, stores, notes)
    classes = _known_classes(request, stores)
    annotations, known = None, set[str]()
    if request.annotations is not None:
        keys = [picture.key for picture in pool]
        annotations = read_annotations(
            request.annotations, request.annotation_format, classes, request.drop_other_classes
        ).bind(keys)
        known = set(annotations.labelled(keys))
        absent = annotations.absent(keys)
        if absent:
            notes.append(f"{len(absent)} annotated pictures are absent: {some(absent)}")
        notes.append(annotations.report.summary())
    parts = partition(request, pool, lambda picture: picture.key in known, notes)

    def trainable(picture: PoolPicture, soft: bool) -> TrainingPicture:
        truth = partial(annotations.truth, picture.key) if annotations is not None and picture.key in known else None
        return TrainingPicture(picture.key, picture.path, truth, picture.soft if soft else ())

    validation = [picture for picture in parts.validation if picture.key in known]
    if 0 < len(validation) < len(parts.validation):
        notes.append(
            f"{len(parts.validation) - len(validation)} pictures to validate on are not annotated, and are left out"
        )
    if annotations is not None and validation and not any(_counts(annotations, p.key) for p in validation):
        raise RequestError(
            f"none of the {len(validation)} annotated pictures to validate on holds an object that counts: no average "
            "precision can be measured. Give another --val-list, or --val-fraction 0"
        )
    pictures = [trainable(picture, request.distills) for picture in parts.training]
    labelled = [picture.key in known for picture in parts.training]
    return TrainingSet(
        pictures=pictures,
        labelled=labelled,
        validation=[EvaluationPicture(picture.key, picture.path) for picture in validation],
        held_out=[] if validation else [trainable(p, True) for p in parts.validation if p.soft],
        annotations=annotations,
        classes=_classes(stores, annotations),
        fingerprint=_fingerprint(stores, pictures, labelled, annotations),
        notes=notes,
    )


def _known_classes(request: TrainRequest, stores: Sequence[LabelStore]) -> list[str] | None:
    """The class list that is there before the annotations are read: the stores', or --names, which must agree."""
    names = list(read_names(Path(request.names))) if request.names else None
    if not stores:
        return names
    classes = list(stores[0].attributes.teacher.classes)
    if names is not None and names != classes:
        raise RequestError(
            f"{request.names} names {', '.join(names)}; the teacher of {stores[0].path} knows {', '.join(classes)}. "
            "Leave out --names: the store's classes count"
        )
    return classes


def _classes(stores: Sequence[LabelStore], annotations: AnnotationSet | None) -> tuple[str, ...]:
    if stores:
        return stores[0].attributes.teacher.classes
    if annotations is None:
        raise RequestError("without a --store a training needs --annotations")
    return annotations.classes


def _counts(annotations: AnnotationSet, key: str) -> bool:
    """Whether a picture has an object that is neither difficult nor a crowd, if it is as large as pictures may be."""
    truth = annotations.truth(key, MAX_SIDE, MAX_SIDE)
    return truth is not None and bool((~(truth.difficult | truth.crowd)).any())


def _fingerprint(
    stores: Sequence[LabelStore],
    pictures: Sequence[TrainingPicture],
    labelled: Sequence[bool],
    annotations: AnnotationSet | None,
) -> str:
    """Of the stores by their metadata (teacher, geometry and pictures included), of what is learnt from each picture,
    and of what the annotations hold in all."""
    content = {
        "stores": [store.metadata.sha256 for store in stores],
        "pictures": [[item.key, _known_by(item), known] for item, known in zip(pictures, labelled, strict=True)],
        "annotations": None if annotations is None else asdict(annotations.report),
    }
    return hashlib.sha256(canonical_json(content)).hexdigest()


def _known_by(item: TrainingPicture) -> bool | list[int]:
    """Whether a store has it, or which ones where there are several."""
    return bool(item.stored) if len(item.stored) < 2 else [stored.teacher for stored in item.stored]
