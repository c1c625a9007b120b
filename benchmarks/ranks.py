"""Is a student of two ranks as good as one of a single process, at an equal whole batch? Written into docs/ranks.md.

    python benchmarks/ranks.py [--seeds 3] [--epochs 18] [--width 0.125] [--input-size 224] [--batch-size 8]
                               [--work FOLDER] [--out FOLDER]

Labels the photographs of demo/ with its teacher, then trains F-YOLO from the store with one and with two ranks, seed by
seed. Broken off, the same command goes on; what is in OUT/ranks.json by the same settings is not run again.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ablation.ledger import Ledger, identity
from parts import ROOT

from data.annotations import read_annotations
from data.pictures import find_pictures
from data.splits import read_list
from pipeline.evaluate import EvaluationPicture, evaluate
from pipeline.model_source import load_detector_source
from stages.bench.detect import Predictor
from stages.bench.machine import this_machine
from stages.device import resolve_device

BCCD = ROOT / "demo/bccd"
RANKS = (1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=18, help="of 18 batches of 8")
    parser.add_argument("--width", default="0.125")
    parser.add_argument("--input-size", default="224")
    parser.add_argument("--batch-size", default="8", help="of all ranks together")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "ranks", help="folder of the store and the runs")
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="folder of ranks.json and ranks.md")
    asked = parser.parse_args()
    work, ledger = asked.work.resolve(), Ledger.open(asked.out / "ranks.json", this_machine().line)
    student = ("--model", "f-yolo", "--width", asked.width, "--epochs", str(asked.epochs))
    student += ("--batch-size", asked.batch_size, "--learning-rate", "4e-3", "--ema", "0.99", "--val-fraction", "0")
    lists = BCCD / "ImageSets/Main"
    store = ("label", relative(BCCD / "JPEGImages"), "--teacher", relative(ROOT / "demo/teacher.safetensors"))
    store += ("--store", "STORE", "--input-size", asked.input_size, "--device", "cpu", "--precision", "float32")
    train = ("train", "--store", "STORE", "--annotations", relative(BCCD / "Annotations"), "--device", "cpu")
    train += ("--train-list", relative(lists / "train.txt"), "--train-list", relative(lists / "unlabelled.txt"))
    train += ("--test-list", relative(lists / "test.txt"), *student)
    names = {"STORE": str(work / f"store-{identity(store, {})}")}
    tasks = {
        f"seed-{seed}/ranks-{ranks}": (*train, "--seed", str(seed), *(("--devices", str(ranks)) if ranks > 1 else ()))
        for seed in range(asked.seeds)
        for ranks in RANKS
    }
    keys = {name: identity((*store, *command), {}) for name, command in tasks.items()}
    for name, command in tasks.items():
        if ledger.find(name, keys[name]) is not None:
            continue
        distill(store, names)
        run = work / f"{name.replace('/', '-')}-{keys[name]}"
        print(f"[{time.strftime('%H:%M:%S')}] {name}", file=sys.stderr, flush=True)
        resume = ("--resume",) if (run / "run.json").exists() else ()
        # the cores are shared out: both ways have the same two
        distill((*command, "--run", str(run), *resume), names, threads=1 if "--devices" in command else 2)
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        ledger.put(
            name,
            {
                "identity": keys[name],
                "command": command,
                "ap50": ap50_of(run),
                "steps": rows[-1]["step"],
                "seconds": round(sum(row["seconds"] for row in rows), 1),
            },
        )
    found = {name: ledger.results[name] for name in tasks}
    ledger.facts = {"store": store, "seeds": asked.seeds, "command": " ".join(["python", *sys.argv])}
    ledger.write()
    text = page(ledger.machine, found, asked.seeds, int(asked.batch_size))
    (asked.out / "ranks.md").write_text(text)
    print(text)


def relative(path: Path) -> str:
    """To the checkout, in which the commands run: the record names no folder of this machine."""
    return str(path.relative_to(ROOT))


def distill(command: Sequence[str], names: dict[str, str], threads: int = 2) -> None:
    """`distill …`. SystemExit where it fails, having said why."""
    words = [names.get(word, word) for word in command]
    done = subprocess.run(
        [sys.executable, "-c", "from cli.main import main; main()", *words],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(threads)},
        stdout=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode:
        sys.exit(f"distill {' '.join(words)} ended with status {done.returncode}; the same command goes on")


def ap50_of(run: Path) -> float:
    """VOC07 AP50 of the last epoch's network on the test list, in %."""
    source = load_detector_source(run)
    predictor = Predictor(
        source.detector,
        height=source.height,
        width=source.width,
        resize=source.resize,
        device=resolve_device("cpu"),
    )
    stems = set(read_list(BCCD / "ImageSets/Main/test.txt"))
    pictures = [
        EvaluationPicture(picture.key, picture.path)
        for picture in find_pictures([str(BCCD / "JPEGImages")])
        if picture.path.stem in stems
    ]
    annotations = read_annotations(BCCD / "Annotations").bind([picture.key for picture in pictures])
    return 100 * evaluate(predictor, pictures, annotations, threads=2, with_coco=False).voc.map_11_point


def page(machine: str, found: dict[str, dict[str, Any]], seeds: int, batch: int) -> str:
    """docs/ranks.md."""
    ap50 = {ranks: [found[f"seed-{seed}/ranks-{ranks}"]["ap50"] for seed in range(seeds)] for ranks in RANKS}
    seconds = {ranks: [found[f"seed-{seed}/ranks-{ranks}"]["seconds"] for seed in range(seeds)] for ranks in RANKS}
    difference = [two - one for one, two in zip(ap50[1], ap50[2], strict=True)]
    steps = next(iter(found.values()))["steps"]
    rows = [
        f"| {ranks} {'rank' if ranks == 1 else 'ranks'} | {cells(ap50[ranks])} | {mean_and_deviation(ap50[ranks])} | "
        f"{statistics.mean(seconds[ranks]):.0f} |"
        for ranks in RANKS
    ]
    rows.append(f"| two minus one | {cells(difference, '+')} | {mean_and_deviation(difference, '+')} | |")
    noise = statistics.stdev(ap50[1]) if seeds > 1 else float("nan")
    verdict = "within" if abs(statistics.mean(difference)) <= noise else "**NOT within**"
    return (
        "# Two ranks against one\n\nWritten by `python benchmarks/ranks.py`; nothing here was typed in.\n\n"
        f"Machine: {machine}.\n\n"
        f"F-YOLO from the store of the demo's teacher, {steps} steps of {batch} pictures, the whole batch the same for "
        "one process and for `--devices 2`; VOC07 AP50 on the 72 test pictures, in %, seed by seed.\n\n"
        f"| | {' | '.join(f'seed {seed}' for seed in range(seeds))} | mean ± standard deviation | seconds |\n"
        f"|---|{'---|' * seeds}---|---|\n" + "\n".join(rows) + "\n\n"
        f"The mean difference is {verdict} what another seed makes of one rank (its standard deviation).\n"
    )


def cells(values: Sequence[float], sign: str = "") -> str:
    return " | ".join(f"{value:{sign}.1f}" for value in values)


def mean_and_deviation(values: Sequence[float], sign: str = "") -> str:
    deviation = f"{statistics.stdev(values):.1f}" if len(values) > 1 else "–"
    return f"{statistics.mean(values):{sign}.1f} ± {deviation}"


if __name__ == "__main__":
    main()
