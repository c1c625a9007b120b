"""Does a training on two ranks end as one on one rank does, at the same global batch?"""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from parts import ROOT
from parts.turns import Finding, spread

DEMO = ROOT / "demo"
SIZE = 224
BATCH = 8
STUDENT = ("--width", "0.25", "--learning-rate", "4e-3", "--ema", "0.99", "--input-size", str(SIZE))


def measure_ranks(work: Path, epochs: int, seeds: int) -> list[Finding]:
    """AP50 of the last epoch on the demo's test pictures, for each seed with one rank and with two, a thread each."""
    pictures, store = DEMO / "bccd" / "JPEGImages", work / "store"
    teacher = DEMO / "teacher.safetensors"
    _distill("label", pictures, "--teacher", teacher, "--store", store, "--input-size", SIZE, "--device", "cpu")
    found = {ranks: [_train(work, store, ranks, seed, epochs) for seed in range(seeds)] for ranks in (1, 2)}
    differences = [two - one for one, two in zip(found[1], found[2], strict=True)]
    apart = statistics.stdev(differences) if seeds > 1 else 0.0
    return [
        *(
            Finding(f"{ranks} rank{'s' * (ranks > 1)}", "% AP50", spread(values), digits=1, details=_listed(values))
            for ranks, values in found.items()
        ),
        Finding(
            "two ranks less one, seed by seed",
            "points",
            spread(differences),
            digits=1,
            details=f"mean {statistics.mean(differences):+.1f}, standard deviation {apart:.1f}",
        ),
    ]


def _train(work: Path, store: Path, ranks: int, seed: int, epochs: int) -> float:
    run, lists = work / f"ranks-{ranks}-{seed}", DEMO / "bccd" / "ImageSets" / "Main"
    _distill(
        *("train", "--store", store, "--annotations", DEMO / "bccd" / "Annotations", "--run", run, *STUDENT),
        *("--train-list", lists / "train.txt", "--train-list", lists / "unlabelled.txt"),
        *("--val-list", lists / "test.txt", "--epochs", epochs, "--validate-every", epochs, "--batch-size", BATCH),
        *("--seed", seed, "--device", "cpu", "--devices", ranks),
    )
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    return 100 * float(last["validation/ap50_voc07"])


def _distill(*words: Any) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "cli", *map(str, words)], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(done.stderr)


def _listed(values: list[float]) -> str:
    return "by seed: " + ", ".join(f"{value:.1f}" for value in values)
