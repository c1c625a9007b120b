"""Which pictures are trained on and which judge the training: never the same ones, by name or by content."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from data.errors import RequestError
from data.prefetch import map_ahead
from data.splits import assert_disjoint, read_list, select, split_by_seed
from pipeline.picture_pool import PoolPicture, some
from pipeline.train_request import TrainRequest


@dataclass(frozen=True, slots=True)
class Partition:
    """Disjoint by content."""

    training: list[PoolPicture]
    validation: list[PoolPicture]


def partition(
    request: TrainRequest,
    pool: Sequence[PoolPicture],
    annotated: Callable[[PoolPicture], bool],
    notes: list[str],
) -> Partition:
    """Choose by the lists of the request, else hold out a share by its seed, of the annotated pictures where some are.

    A picture that teaches nothing, being neither annotated nor distilled from, is left out; notes say how many.
    Raises RequestError where nothing is left to train on, and where the lists would have a picture on both sides, by
    name or as the same content under two names. What the seed would bring to both sides is held out.
    """
    digests: dict[str, bytes] = {}

    def digests_of(pictures: Sequence[PoolPicture]) -> dict[str, bytes]:
        new = [picture for picture in pictures if picture.key not in digests]
        digests.update(map_ahead(_digest, new, threads=4, ahead=16))
        return {picture.key: digests[picture.key] for picture in pictures}

    validation = _listed(request.val_lists, pool, notes)
    judged = [*validation, *_listed(request.test_lists, pool, notes)]
    kept_out = {picture.key for picture in judged}
    training = _listed(request.train_lists, pool, notes)
    twice = [picture.key for picture in training if picture.key in kept_out]
    if twice:
        raise RequestError(
            f"{len(twice)} pictures are on a training list and on a validation or test list: {some(twice)}. Take them "
            "from one of the lists"
        )
    if not request.train_lists:
        training = [picture for picture in pool if picture.key not in kept_out]

    if not request.val_lists and request.val_fraction:
        known = [picture for picture in training if annotated(picture)] or training
        chosen = set(split_by_seed((picture.key for picture in known), request.val_fraction, request.seed)[1])
        validation = [picture for picture in training if picture.key in chosen]
        rest = [picture for picture in training if picture.key not in chosen]
        if validation:
            content, held = digests_of(rest), set(digests_of(validation).values())
            training = [picture for picture in rest if content[picture.key] not in held]
            judged += validation
        else:
            notes.append("--val-fraction holds no picture out of so few: nothing will say which epoch is best")
        if len(training) < len(rest):
            notes.append(f"{len(rest) - len(training)} copies of held-out pictures are held out too")

    useful = [p for p in training if annotated(p) or (request.distills and p.soft)]
    if len(useful) < len(training):
        notes.append(
            f"{len(training) - len(useful)} pictures are neither annotated nor distilled from, and are left out"
        )
    if not useful:
        raise RequestError(
            "no picture is left to train on: none is annotated, and none has soft labels to distil from. Check "
            "--annotations, --store, --distillation-weight and the lists"
        )
    if judged:
        assert_disjoint(digests_of(useful), digests_of(judged))
    return Partition(useful, validation)


def _listed(files: Sequence[str], pool: Sequence[PoolPicture], notes: list[str]) -> list[PoolPicture]:
    by_key = {picture.key: picture for picture in pool}
    chosen: dict[str, PoolPicture] = {}
    for file in files:
        selection = select(read_list(file), by_key)
        chosen |= {key: by_key[key] for key in selection.keys}
        if selection.unknown:
            notes.append(f"{len(selection.unknown)} entries of {file} are absent: {some(selection.unknown)}")
    return list(chosen.values())


def _digest(picture: PoolPicture) -> tuple[str, bytes]:
    if len(stored := {soft.digest for soft in picture.soft}) == 1:
        return picture.key, stored.pop()  # of the very file that was labelled; a training masks a file that differs
    return picture.key, hashlib.sha256(picture.path.read_bytes()).digest()
