"""The numbers to reach on a CPU, measured and written into docs/benchmarks.md.

    python benchmarks/cpu.py [--only PART]… [--quick] [--data FOLDER] [--out FOLDER]

Every ratio is taken within one run and one round, of things that run in turn. Full-width networks at 416 with random
weights whose heads fire like trained ones, on the photographs in demo/. A quarter of an hour on two cores. With --only
the other parts keep their last figures, if this machine measured them. A goal that was missed is printed as missed.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from parts import ROOT
from parts.help_time import measure_help
from parts.labelling import measure_labelling
from parts.latency import measure_latency
from parts.memory import measure_memory
from parts.report import PartResult, measured, read_results, write_results
from parts.scene import Scene
from parts.teacher_costs import measure_fm_nms, measure_store_bytes
from parts.training import measure_training
from parts.turns import Finding

from stages.bench.machine import this_machine
from stages.bench.speed import Schedule
from stages.device import Precision, resolve_precision

CPU = torch.device("cpu")

DARKNET = ROOT.parent / "shared" / "darknet"
THIN_WEIGHTS, THIN_CFG = DARKNET / "weights" / "yolov2-voc-thin8.weights", DARKNET / "cfg" / "yolov2-voc-thin8.cfg"
"""A YOLOv2 of an eighth of the width with random weights, where it lies beside the checkout: the worst case."""


@dataclass(frozen=True, slots=True)
class Part:
    """title: of its section. settings: what a reader must know to repeat it."""

    title: str
    settings: str
    measure: Callable[[], Sequence[Finding]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", metavar="PART", help="measure this part (repeatable)")
    parser.add_argument("--quick", action="store_true", help="tiny networks and few pictures: tries the code only")
    parser.add_argument("--data", type=Path, default=ROOT / "demo", help="folder with bccd/")
    parser.add_argument("--out", type=Path, help="folder for benchmarks.md and .json instead of docs/")
    parser.add_argument(
        "--teacher", type=Path, default=ROOT / "demo" / "teacher.safetensors", help="a trained teacher, for its bytes"
    )
    arguments = parser.parse_args()
    out = arguments.out or ROOT / "docs"
    if arguments.quick and arguments.out is None:
        parser.error("--quick measures nothing of worth: say with --out where its figures go")

    machine = this_machine().line
    results_file = out / "benchmarks.json"
    with tempfile.TemporaryDirectory(prefix="distill-bench-") as work:
        parts = every_part(arguments, Path(work))
        unknown = set(arguments.only or ()) - parts.keys()
        if unknown:
            parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(parts)}")
        out.mkdir(parents=True, exist_ok=True)
        for name in arguments.only or parts:
            part = parts[name]
            print(f"measuring: {part.title}", file=sys.stderr, flush=True)
            result = measured(part.title, part.settings, part.measure)
            print(f"{result.text}\n", flush=True)
            results = read_results(results_file, machine) | {name: result}
            ordered = {known: results[known] for known in parts if known in results}
            write_results(results_file, machine, ordered)
            (out / "benchmarks.md").write_text(page(machine, ordered))
    missed = [finding.what for result in ordered.values() for finding in result.missed]
    print(f"missed: {', '.join(missed)}" if missed else "every goal measured was reached")


def every_part(arguments: argparse.Namespace, work: Path) -> Mapping[str, Part]:
    """Name to part, in the order of the page."""
    quick: bool = arguments.quick
    scene = Scene(
        data=arguments.data,
        work=work,
        device=CPU,
        input_size=96 if quick else 416,
        width=0.125 if quick else 1.0,
        rounds=2 if quick else 3,
        label_pictures=40 if quick else 96,
        label_batch=8,
        train_batches=2 if quick else 3,
        train_batch=8 if quick else 32,
        threads=torch.get_num_threads(),
    )
    auto = resolve_precision("auto", CPU)
    precisions: list[Precision] = ["float32", "bfloat16"] if auto == "bfloat16" else ["float32"]
    best = f"auto is {auto} here"
    turns = f"{scene.rounds} rounds, in turn"
    network = f"YOLOv2 of {scene.width:g} of its width at {scene.input_size}"
    schedule = Schedule(passes=scene.rounds, warmup=2, min_runs=2 if quick else 10, min_seconds=0 if quick else 1)

    def store_bytes() -> list[Finding]:
        findings = measure_store_bytes(scene, arguments.teacher, trained=True)
        if THIN_WEIGHTS.exists():
            findings += measure_store_bytes(scene, THIN_WEIGHTS, THIN_CFG, trained=False)
        return findings

    return {
        "label": Part(
            "Labelling",
            f"`label_shards` into a new store (reading, checking, decoding, FM-NMS and writing included) over the same "
            f"network's forward pass on decoded batches. {network}, batch {scene.label_batch}, {scene.label_pictures} "
            f"pictures a turn, {turns}; {best}.",
            lambda: [
                finding
                for tap in (False, True)
                for finding in measure_labelling(scene, precisions, tap=tap, decoding_may_limit=False)
            ],
        ),
        "train": Part(
            "Training",
            f"Batches as `train` makes them (decoding every picture every time, full augmentation, soft labels moved "
            f"along) and the step. F-YOLO of {scene.width:g} of its width at {scene.input_size}, batch "
            f"{scene.train_batch}, {scene.train_batches} batches a turn, {turns} (twice as many against training "
            f"without distillation); in the loop {network} and FM-NMS; {best}.",
            partial(measure_training, scene, precisions),
        ),
        "memory": Part(
            "Memory of training",
            f"Largest resident size of whole `distill train` processes, {scene.train_batches} batches of "
            f"{scene.train_batch} at {scene.input_size}, {turns}.",
            partial(measure_memory, scene, precisions),
        ),
        "bytes": Part(
            "Soft labels on disk",
            "Bytes of the soft labels' shard files over pictures, shard by shard.",
            store_bytes,
        ),
        "fm-nms": Part(
            "FM-NMS",
            f"FM-NMS and the zeroing of what it drops, over the forward pass of {network}, batch {scene.label_batch}, "
            f"{turns}.",
            partial(measure_fm_nms, scene, auto),
        ),
        "help": Part("Help", "Whole processes.", measure_help),
        "latency": Part(
            "One frame at a time",
            f"Batch 1, from the decoded 640×480 frame to boxes (NMS included), median over {scene.rounds} passes; the "
            f"range is that of the passes' medians. All at {scene.input_size}, {scene.width:g} of their width.",
            partial(measure_latency, scene, precisions, schedule),
        ),
    }


def page(machine: str, results: Mapping[str, PartResult]) -> str:
    """docs/benchmarks.md."""
    head = (
        "# Benchmarks\n\nWritten by `make bench` (`python benchmarks/cpu.py`); nothing here was typed in. A ratio is "
        "the median over rounds in which both sides ran in turn, with its range.\n\n"
        f"Machine: {machine}."
    )
    return "\n\n".join([head, *(result.text for result in results.values())]) + "\n"


if __name__ == "__main__":
    main()
