"""A small training that its tests run whole, break off, or share out: pictures, a store, and the command."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.command_line import succeed
from tests.pictures import copy_annotations, copy_pictures, stems, write_list, write_teacher

LABEL = ("--device", "cpu", "--precision", "float32", "--batch-size", 4, "--shard-size", 4, "--threads", 1)
MACHINE = ("--device", "cpu", "--precision", "float32", "--workers", 2)
STUDENT = ("--model", "f-yolo", "--width", 0.05, "--epochs", 3, "--validate-every", 1)
RECIPE = ("--ema", 0.9, "--clip-norm", 10, "--labelled-share", 0.5)


def make_training(folder: Path, *recipe: Any) -> Path:
    """Eleven pictures, annotations of seven, a store, val.txt, and the uninterrupted run/ of one process."""
    copy_pictures(folder / "pictures", 11)
    names = stems(11)
    copy_annotations(folder / "annotations", names[:7])
    write_list(folder / "val.txt", names[5:7])
    teacher = write_teacher(folder / "teacher.safetensors")
    succeed("label", folder / "pictures", "--teacher", teacher, "--store", folder / "store", *LABEL)
    succeed(*train_command(folder, folder / "run", recipe))
    return folder


def train_command(folder: Path, run: Path, recipe: Sequence[Any]) -> tuple[Any, ...]:
    """recipe: flags beside those of every such training; batch size and learning rate belong to it."""
    data = ("--store", folder / "store", "--annotations", folder / "annotations", "--val-list", folder / "val.txt")
    return ("train", "--run", run, *STUDENT, *RECIPE, *recipe, *MACHINE, *data)
