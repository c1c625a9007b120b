"""Everything that wants a GPU, in one command that can be broken off and repeated; most valuable first.

    python benchmarks/gpu.py [--budget SECONDS] [--only PART]… [--out FOLDER] [--device cuda] [--quick]
                             [--ablation-data FOLDER]

Runs from a checkout, with the packages of pyproject.toml but without installing the project. Each part leaves
FOLDER/PART.json; a part whose file is there is not measured again. With a budget no part is begun that is not expected
to end within it. A part that fails is reported, and the next one begins. With --ablation-data (carla/ and bccd/) what
is left of the budget goes to benchmarks/results.py, which leaves results-gpu.json and results.md in FOLDER and goes on
from docs/results-gpu.json.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from parts import ROOT
from parts.agreement import measure_agreement
from parts.labelling import measure_labelling
from parts.latency import measure_latency
from parts.report import PartResult, measured
from parts.scene import Scene
from parts.teacher_costs import measure_fm_nms
from parts.training import measure_training
from parts.turns import Finding

from stages.bench.machine import this_machine
from stages.bench.speed import Schedule
from stages.device import resolve_device

CACHE_BYTES = 4 * 10**9


@dataclass(frozen=True, slots=True)
class Part:
    """seconds: what it is expected to take, for the budget."""

    title: str
    seconds: int
    measure: Callable[[Scene], Sequence[Finding]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=float, help="seconds for all of it")
    parser.add_argument("--only", action="append", metavar="PART", help=f"of {', '.join(PARTS)} (repeatable)")
    parser.add_argument(
        "--out", type=Path, default=Path(os.environ.get("OUT", "gpu-results")), help="folder of results"
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--data", type=Path, default=ROOT / "demo", help="folder with bccd/")
    parser.add_argument("--quick", action="store_true", help="tiny networks and few pictures: tries the code only")
    parser.add_argument("--ablation-data", type=Path, help="pictures of the ablation, which is then run too")
    arguments = parser.parse_args()
    unknown = set(arguments.only or ()) - PARTS.keys()
    if unknown:
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")

    began = time.monotonic()
    arguments.out.mkdir(parents=True, exist_ok=True)
    machine = this_machine().line
    print(f"Machine: {machine}\n", flush=True)
    failed = []
    with tempfile.TemporaryDirectory(prefix="distill-bench-") as work:
        scene = make_scene(resolve_device(arguments.device), arguments.data, Path(work), quick=arguments.quick)
        for name in arguments.only or PARTS:
            file, part = arguments.out / f"{name}.json", PARTS[name]
            left = None if arguments.budget is None else arguments.budget - (time.monotonic() - began)
            if file.exists():
                show(f"{name}: measured before", PartResult.from_json(json.loads(file.read_text())["part"]))
            elif left is not None and part.seconds > left:
                print(f"{name}: left out, {part.seconds} s are expected and {left:.0f} s are left\n", flush=True)
            else:
                try:
                    result = measured(part.title, settings(scene), partial(part.measure, scene))
                except Exception:  # whatever breaks one part, the device is there for the others
                    failed.append(name)
                    print(f"{name}: failed\n{traceback.format_exc()}", flush=True)
                    continue
                keep(file, machine, result)
                show(name, result)
    if arguments.ablation_data is not None:
        left = None if arguments.budget is None else arguments.budget - (time.monotonic() - began)
        if not run_ablation(arguments.ablation_data, arguments.out, left, "quick" if arguments.quick else "gpu"):
            failed.append("ablation")
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


def run_ablation(data: Path, out: Path, seconds: float | None, profile: str) -> bool:
    """benchmarks/results.py in a process of its own, as far as the time goes; whether it succeeded."""
    known = ROOT / "docs" / f"results-{profile}.json"
    if known.exists() and not (out / known.name).exists():
        shutil.copyfile(known, out / known.name)
    command = [sys.executable, str(ROOT / "benchmarks" / "results.py"), "--profile", profile]
    command += ["--data", str(data), "--out", str(out)]
    if seconds is not None:
        command += ["--budget", f"{max(0.0, seconds):.0f}"]
    return subprocess.run(command, check=False).returncode == 0


def make_scene(device: torch.device, data: Path, work: Path, *, quick: bool) -> Scene:
    """Sizes that keep a large GPU busy for seconds per turn, or next to nothing."""
    return Scene(
        data=data,
        work=work,
        device=device,
        input_size=96 if quick else 416,
        width=0.125 if quick else 1.0,
        rounds=2 if quick else 3,
        label_pictures=40 if quick else 4096,
        label_batch=8 if quick else 64,
        train_batches=2 if quick else 20,
        train_batch=8 if quick else 64,
        threads=torch.get_num_threads(),
    )


def settings(scene: Scene) -> str:
    """What a reader must know to repeat a part."""
    return (
        f"Input {scene.input_size}, {scene.width:g} of the width, {scene.threads} threads, {scene.rounds} rounds in "
        f"turn; label {scene.label_pictures} pictures in batches of {scene.label_batch}; train {scene.train_batches} "
        f"batches of {scene.train_batch}."
    )


def keep(file: Path, machine: str, result: PartResult) -> None:
    """Write the part's file, whole or not at all."""
    staged = file.with_suffix(".new")
    staged.write_text(json.dumps({"machine": machine, "part": result.to_json()}, indent=1) + "\n")
    staged.replace(file)


def show(name: str, result: PartResult) -> None:
    """The part on standard output."""
    print(f"[{name}]\n{result.text}\n", flush=True)


def agreement(scene: Scene) -> list[Finding]:
    return measure_agreement(replace(scene, label_pictures=min(scene.label_pictures, 512)))


def label(scene: Scene) -> list[Finding]:
    return measure_labelling(scene, ["bfloat16"], tap=False, decoding_may_limit=True)


def label_tap(scene: Scene) -> list[Finding]:
    fewer = replace(scene, label_pictures=max(scene.label_pictures // 4, 40))
    return measure_labelling(fewer, ["bfloat16"], tap=True, decoding_may_limit=True)


def train(scene: Scene) -> list[Finding]:
    return measure_training(scene, ["bfloat16"])


def train_cached(scene: Scene) -> list[Finding]:
    return measure_training(scene, ["bfloat16"], cache_bytes=CACHE_BYTES)


def latency(scene: Scene) -> list[Finding]:
    return measure_latency(scene, ["bfloat16", "float32"], Schedule(passes=scene.rounds))


def fm_nms(scene: Scene) -> list[Finding]:
    return measure_fm_nms(scene, "bfloat16")


def float32(scene: Scene) -> list[Finding]:
    return [
        *measure_labelling(scene, ["float32"], tap=False, decoding_may_limit=True),
        *measure_training(scene, ["float32"], cache_bytes=CACHE_BYTES),
    ]


PARTS: Mapping[str, Part] = {
    "agreement": Part("The same numbers as on the CPU, and every time", 90, agreement),
    "label": Part("Labelling", 90, label),
    "train": Part("Training, every picture decoded every time", 90, train),
    "train-cached": Part("Training, decoded pictures kept in memory", 90, train_cached),
    "latency": Part("One frame at a time", 120, latency),
    "label-tap": Part("Labelling with features", 60, label_tap),
    "fm-nms": Part("FM-NMS", 30, fm_nms),
    "float32": Part("Labelling and training in float32", 150, float32),
}


if __name__ == "__main__":
    main()
