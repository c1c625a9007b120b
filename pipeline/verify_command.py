"""`distill verify`: is a store whole, unchanged, and from this teacher?"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.store.place import Address
from data.store.reader import LabelStore
from data.store.repair import drop_damaged_records
from data.store.verify import Damage, verify_store
from pipeline.model_source import LoadedDetector, load_detector_source
from pipeline.progress import show_progress
from pipeline.verify_remedy import OTHER_LABELS, OTHER_TEACHER, store_remedy
from pipeline.verify_teacher import Comparison, compare_with_teacher

MOST_THREADS = 16


@dataclass(frozen=True, slots=True)
class VerifyRequest:
    """One field per flag of `distill verify`, under its name. threads: None for one per core, at most MOST_THREADS."""

    store: Address
    quick: bool = False
    repair: bool = False
    teacher: Path | None = None
    cfg: Path | None = None
    names: Path | None = None
    sample: int = 32
    images: tuple[str, ...] = ()
    device: str = "auto"
    threads: int | None = None


def run_verify(request: VerifyRequest) -> dict[str, Any]:
    """Check every file, and with a teacher that its weights (and cfg) are those the store was labelled with and that it
    says of a sample of pictures what the store holds.

    Returns "whole" (bool), "damage" and a "text" that names every damaged shard or file; with repair "dropped", the
    shards that lost their record; with a teacher "compared" and "deviations". A store that lacks nothing but what was
    dropped is not whole; where it is not, "remedy" says what is to be done. A deviation whose "agrees" is None compared
    no kept slot. Raises RequestError where there is no store, teacher, or picture to compare with.
    """
    source = None if request.teacher is None else load_detector_source(request.teacher, request.cfg, request.names)
    threads = request.threads or min(MOST_THREADS, os.cpu_count() or 1)
    with show_progress("verifying", 1, "shards") as progress:
        damage = verify_store(
            request.store,
            lambda done, total: progress.count(done, total),
            values=not request.quick,
            threads=threads,
        )
    result: dict[str, Any] = {"store": str(request.store)}
    lines = [
        f"{'shard ' + str(item.shard) if item.shard is not None else 'no shard'}: {item.file}: {item.problem}"
        for item in damage
    ]
    if request.repair:
        dropped = drop_damaged_records(request.store, damage, values=not request.quick)
        result["dropped"] = dropped
        lines += [f"shard {shard}: its ledger record was dropped" for shard in dropped]
    remedy = store_remedy(damage, repaired=request.repair)
    if source is not None and not damage:
        store = LabelStore.open(request.store)
        damage, remedy = list(_other_teacher(store, source)), OTHER_TEACHER
        lines += [f"{item.file}: {item.problem}" for item in damage]
        if request.sample and not damage:
            compared = _compare(request, store, source)
            result |= {"compared": compared.pictures, "deviations": _deviations(compared)}
            damage = [_disagreement(item) for item in _deviations(compared) if item["agrees"] is False]
            remedy = OTHER_LABELS
            lines += [_told(item) for item in _deviations(compared)]
            if compared.absent:
                lines.append(f"{len(compared.absent)} pictures of the sample are absent or changed, and were left out")
    if not damage:
        lines.insert(0, f"{request.store}: whole and unchanged{_origin(source, result.get('deviations', []))}")
    problems = [
        {"shard": item.shard, "file": item.file, "problem": item.problem, "unfinished": item.unfinished}
        for item in damage
    ]
    if damage:
        result["remedy"] = remedy
    return result | {"whole": not damage, "damage": problems, "text": "\n".join(lines)}


def _other_teacher(store: LabelStore, source: LoadedDetector) -> Iterator[Damage]:
    recorded = store.attributes.teacher
    for name, found, expected in (
        ("weights", source.weights_sha256, recorded.weights_sha256),
        ("cfg", source.cfg_sha256, recorded.cfg_sha256),
    ):
        if found != expected:
            problem = f"the SHA-256 of its {name} is {found}, the store was labelled with {expected}"
            yield Damage(None, str(source.file), problem)


def _compare(request: VerifyRequest, store: LabelStore, source: LoadedDetector) -> Comparison:
    with show_progress("labelling anew", min(request.sample, len(store)), "pictures") as progress:
        return compare_with_teacher(
            store,
            source,
            sample=request.sample,
            images=request.images,
            device=request.device,
            progress=progress,
        )


def _deviations(compared: Comparison) -> list[dict[str, Any]]:
    return [
        {
            "array": item.array,
            "largest": item.largest,
            "key": item.key,
            "scale": item.scale,
            "compared": item.compared,
            "kept_alike": item.kept_alike,
            "unexplained": item.unexplained,
            # nothing against it, and nothing for it
            "agrees": None if item.agrees and not item.compared else item.agrees,
        }
        for item in compared.deviations
    ]


def _origin(source: LoadedDetector | None, deviations: list[dict[str, Any]]) -> str:
    if source is None:
        return ""
    if any(item["agrees"] is None for item in deviations):
        return ", and by its digests from this teacher"
    return ", and from this teacher"


def _told(item: dict[str, Any]) -> str:
    kept = "" if item["kept_alike"] == 1 else f"; {item['kept_alike']:.4%} of the slots kept in both or neither"
    if item["unexplained"]:
        kept += f"; {item['unexplained']} slots kept by one of them alone, and no near tie"
    if not item["compared"]:
        return f"{item['array']}: no kept slot was compared: the store keeps none in these pictures{kept}"
    far = f"at most {item['largest']:.3g} from the live teacher ({item['key']})"
    return f"{item['array']}: {far}, of values up to {item['scale']:.3g}{kept}"


def _disagreement(item: dict[str, Any]) -> Damage:
    return Damage(None, item["array"], f"the teacher says otherwise: {_told(item)}")
