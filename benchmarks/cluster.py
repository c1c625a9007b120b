"""What many workers on one store cost, measured and written into docs/cluster-benchmarks.md.

    python benchmarks/cluster.py [--only PART]… [--quick] [--out FOLDER]

A part that this machine has measured is not measured again unless it is named by --only: stopped, it goes on.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from parts import ROOT
from parts.cluster_plan import measure_plan
from parts.cluster_ranks import measure_ranks
from parts.cluster_simulation import measure_simulation
from parts.cluster_workers import measure_workers
from parts.report import PartResult, measured, read_results, write_results
from parts.turns import Finding

from stages.bench.machine import this_machine

SHARD = 1000
PER_SECOND = 500

WORKERS = (
    "Processes of `label_what_is_left` on one store, {shard} pictures per shard; a teacher that sleeps for the time of "
    f"a forward pass on a small GPU ({PER_SECOND} pictures/s, batches of 50) and costs no core. Timed from the moment "
    "that all processes are ready. Sharing: the time a worker spends on listing the ledger, claiming and letting go, "
    "of its whole time."
)
PLAN = (
    "Empty files on a local disk in folders of a thousand; a manifest of synthetic entries. Each in a process of its "
    "own."
)
SIMULATION = (
    "Simulated time, real files: every worker is a ShardQueue with its claims on a local disk; a shard of 1,024 "
    "pictures takes 10 s ± 20 % of simulated time (a GPU at 100 pictures per second), and its record is written at the "
    "end. All workers begin within 60 s. One process does the file operations of all of them."
)

RANK_EPOCHS, RANK_SEEDS = 20, 3
RANKS = (
    "`distill train --devices N` on the CPU, gloo, statistics of batch norm over both ranks: F-YOLO at a quarter of "
    f"its width, 224×224, the demo's pictures and soft labels, {RANK_EPOCHS} epochs, 8 pictures per step in all; VOC07 "
    "AP50 of the last epoch on the demo's test pictures."
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", action="append", metavar="PART", help="workers, plan, simulation or ranks (repeatable)"
    )
    parser.add_argument("--quick", action="store_true", help="a thousandth of everything: tries the code only")
    parser.add_argument("--out", type=Path, help="folder for the results instead of docs/")
    arguments = parser.parse_args()
    if arguments.quick and arguments.out is None:
        parser.error("--quick measures nothing of worth: say with --out where its figures go")
    quick, out = arguments.quick, arguments.out or ROOT / "docs"
    shard = 20 if quick else SHARD
    parts: dict[str, tuple[str, str, Callable[[Path], list[Finding]]]] = {
        "workers": (
            "Two workers, and what sharing costs",
            WORKERS.format(shard=shard),
            lambda work: measure_workers(work, shard, PER_SECOND, 2 if quick else 8, rounds=1 if quick else 3),
        ),
        "plan": (
            "Planning a million pictures",
            PLAN,
            lambda work: measure_plan(work, 2_000 if quick else 100_000, 20_000 if quick else 1_000_000),
        ),
        "simulation": (
            "Ten million pictures, 64 and 1,024 workers",
            SIMULATION,
            lambda work: [
                finding
                for workers in (64, 1024)
                for finding in measure_simulation(work / str(workers), 10_000 if quick else 10_000_000, workers)
            ],
        ),
        "ranks": (
            "A training on two ranks",
            RANKS,
            lambda work: measure_ranks(work, 1 if quick else RANK_EPOCHS, 1 if quick else RANK_SEEDS),
        ),
    }
    machine, file = this_machine().line, out / "cluster-benchmarks.json"
    out.mkdir(parents=True, exist_ok=True)
    for name, (title, settings, measure) in parts.items():
        results = read_results(file, machine)
        if name not in (arguments.only or parts) or (arguments.only is None and name in results):
            continue
        print(f"measuring: {title}", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix="distill-bench-") as work:
            results[name] = measured(title, settings, lambda: measure(Path(work)))  # noqa: B023 (called at once)
        print(f"{results[name].text}\n", flush=True)
        write_results(file, machine, {known: results[known] for known in parts if known in results})
    (out / "cluster-benchmarks.md").write_text(page(machine, read_results(file, machine)))


def page(machine: str, results: Mapping[str, PartResult]) -> str:
    """docs/cluster-benchmarks.md."""
    head = (
        "# Benchmarks of many workers\n\nWritten by `python benchmarks/cluster.py`; nothing here was typed in.\n\n"
        f"Machine: {machine}."
    )
    return "\n\n".join([head, *(result.text for result in results.values())]) + "\n"


if __name__ == "__main__":
    main()
