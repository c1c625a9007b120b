"""Peak memory of `distill train` from a store, over the same command without one: whole processes, one at a time."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from itertools import count
from pathlib import Path

from parts.labelling import prepare
from parts.scene import CLASSES, Scene, random_teacher
from parts.training import annotated
from parts.turns import Finding, Goal, in_turn, ratio, spread
from stages.device import Precision

GOAL = Goal("at most", 1.05)
_MIB = 2**20


def measure_memory(scene: Scene, precisions: Sequence[Precision]) -> list[Finding]:
    """Both commands take the same pictures, classes, network and number of steps."""
    chosen = annotated(scene)[0][: scene.train_batches * scene.train_batch]
    findings = []
    with tempfile.TemporaryDirectory(dir=scene.work) as name:
        folder = Path(name)
        store = folder / "labels.store"
        labelling = prepare(scene, random_teacher(scene), "float32", chosen)
        labelling.label_into(store, labelling.teacher())
        (folder / "names.txt").write_text("".join(f"{name}\n" for name in CLASSES))
        (folder / "list.txt").write_text("".join(f"{picture.path.stem}\n" for picture in chosen))
        runs = count()
        for precision in precisions:
            common = [
                *("--images", str(scene.photographs), "--annotations", str(scene.annotations)),
                *("--train-list", str(folder / "list.txt"), "--val-fraction", "0", "--epochs", "1"),
                *("--batch-size", str(scene.train_batch), "--input-size", str(scene.input_size)),
                *("--width", str(scene.width), "--learning-rate", "1e-4", "--precision", precision),
            ]
            peaks = in_turn(
                {
                    "store": partial(_peak, [*common, "--store", str(store)], folder, runs),
                    "plain": partial(_peak, [*common, "--names", str(folder / "names.txt")], folder, runs),
                },
                scene.rounds,
            )
            median = {name: spread(values).median / _MIB for name, values in peaks.items()}
            findings.append(
                Finding(
                    f"peak memory of train from a store, {precision}",
                    "of that without distillation",
                    ratio(peaks["store"], peaks["plain"]),
                    GOAL,
                    digits=3,
                    details=f"{median['store']:.0f} against {median['plain']:.0f} MiB",
                )
            )
    return findings


def _peak(flags: Sequence[str], folder: Path, runs: "count[int]") -> float:
    """Largest resident size of one `distill train`, in bytes."""
    command = [
        sys.executable,
        "-c",
        "from cli.main import main; main()",
        "train",
        "--run",
        str(folder / f"run{next(runs)}"),
    ]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([*command, *flags], stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"distill train failed:\n{(folder / 'log').read_text()}")
    return usage.ru_maxrss * 1024.0
