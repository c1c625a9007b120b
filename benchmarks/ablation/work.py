"""Doing one task: the command in a process of its own, then what came out of it, as a value for the ledger."""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from parts import ROOT

from ablation.labels import write_merged_store, write_pseudo_labels
from ablation.pool import Pool
from ablation.profile import Profile
from ablation.tasks import Task
from data.annotations import read_annotations
from data.pictures import find_pictures
from pipeline.evaluate import EvaluationPicture, evaluate
from pipeline.model_source import load_detector_source
from stages.bench.detect import Predictor
from stages.device import resolve_device


def perform(task: Task, pool: Pool, profile: Profile, work: Path) -> dict[str, Any]:
    """Do it, or go on with it where it was broken off; returns its result: `made` is the digest of what it made.

    Raises RuntimeError with the end of the log where a command fails.
    """
    path, began = work / task.name, time.monotonic()
    if task.kind == "pseudo":
        write_pseudo_labels(pool, work / task.command[0], float(task.command[1]), path, profile.device)
        made = _digest(sorted(path.glob("*.xml")))
        return {"made": made, "seconds": time.monotonic() - began}
    if task.kind == "merged":
        write_merged_store(pool, work / task.command[0], work / task.command[1], path, profile.device)
        return {"made": _digest(sorted((path / "ledger").glob("*.json"))), "seconds": time.monotonic() - began}
    if task.kind == "store":
        said = _distill([*task.command, "--json"], path, profile, work)
        return {"made": _digest(sorted((path / "ledger").glob("*.json"))), "seconds": json.loads(said)["seconds"]}
    resume = ["--resume"] if (path / "run.json").exists() else []
    _distill([*task.command, *resume], path, profile, work)
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    validated = [row for row in rows if "validation/ap50_voc07" in row]
    return {
        "made": _digest([path / "best.safetensors"]),
        "seconds": sum(row["seconds"] for row in rows),
        "steps": rows[-1]["step"],
        "pictures": sum(row["pictures"] for row in rows),
        "validation": max(row["validation/ap50_voc07"] for row in validated),
        "curve": [[row["step"], round(row["validation/ap50_voc07"], 4)] for row in validated],
        "terms": {name: value for name, value in rows[-1].items() if name.startswith(("region/", "distillation/"))},
        "test": _test(path, pool, profile),
    }


def _distill(command: Sequence[str], path: Path, profile: Profile, work: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    log = path.with_name(f"{path.name}.log")
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": str(profile.threads),
        "MKL_NUM_THREADS": str(profile.threads),
    }
    main = "from cli.main import main; main()"
    with log.open("a") as errors:
        done = subprocess.run(
            [sys.executable, "-c", main, *command],
            cwd=work,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            close_fds=False,  # the work folder's lock: it is held until the last command that works in it ends
        )
    if done.returncode:
        raise RuntimeError(f"distill {' '.join(command)}\n{log.read_text()[-2000:]}")
    return done.stdout


def _test(run: Path, pool: Pool, profile: Profile) -> dict[str, Any]:
    """VOC07 AP50 on the test pictures of the network that validated best."""
    source = load_detector_source(run)
    predictor = Predictor(
        source.detector,
        height=source.height,
        width=source.width,
        resize=source.resize,
        device=resolve_device(profile.device),
    )
    pictures = [EvaluationPicture(picture.key, picture.path) for picture in find_pictures([str(pool.test_images)])]
    annotations = read_annotations(pool.annotations).bind([picture.key for picture in pictures])
    found = evaluate(predictor, pictures, annotations, threads=profile.threads, with_coco=False).voc
    return {
        "ap50": found.map_11_point,
        "ap50_all_point": found.map_all_point,
        "classes": {each.name: asdict(each)["ap_11_point"] for each in found.classes},
        "pictures": found.pictures,
    }


def _digest(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]
