"""`distill verify`: is a store whole, unchanged, and from this teacher?"""

from pathlib import Path
from typing import Any

from data.store.reader import LabelStore
from data.store.verify import verify_store
from pipeline.model_source import load_detector_source
from pipeline.progress import show_progress


def run_verify(store: Path, teacher: Path | None, cfg: Path | None) -> dict[str, Any]:
    """Check every file, and with `teacher` that its weights (and cfg) are those the store was labelled with.

    Returns "whole" (bool), "damage" and a "text" that names every damaged shard or file. Raises RequestError where
    there is no store or no teacher.
    """
    with show_progress("verifying", 1, "shards") as progress:
        damage = verify_store(store, lambda done, total: progress.count(done, total))
    problems = [
        {"shard": item.shard, "file": item.file, "problem": item.problem, "unfinished": item.unfinished}
        for item in damage
    ]
    lines = [
        f"{'shard ' + str(item.shard) if item.shard is not None else 'no shard'}: {item.file}: {item.problem}"
        for item in damage
    ]
    if teacher is not None and not damage:
        source, recorded = load_detector_source(teacher, cfg), LabelStore.open(store).attributes.teacher
        for name, found, expected in (
            ("weights", source.weights_sha256, recorded.weights_sha256),
            ("cfg", source.cfg_sha256, recorded.cfg_sha256),
        ):
            if found != expected:
                problem = f"the SHA-256 of its {name} is {found}, the store was labelled with {expected}"
                problems.append({"shard": None, "file": str(teacher), "problem": problem, "unfinished": False})
                lines.append(f"{teacher}: {problem}")
    if not problems:
        lines = [f"{store}: whole and unchanged" + (", and from this teacher" if teacher is not None else "")]
    return {"store": str(store), "whole": not problems, "damage": problems, "text": "\n".join(lines)}
