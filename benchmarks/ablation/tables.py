"""What a table of the ablation consists of, and how a row of it comes to its trainings."""

from collections.abc import MutableMapping
from dataclasses import dataclass

from ablation.tasks import Commands, Student, Task

EVERYTHING = ("labelled", "unlabelled-100")
UNDISTILLED = ("--distillation-weight", "0")
OVERLAP = ("--fm-nms", "overlap")
CAN_WAIT = 4


@dataclass(frozen=True, slots=True)
class Row:
    """label: in the table. tasks: the trainings behind it, one for each seed. paper: its figure there, or ""."""

    label: str
    tasks: tuple[str, ...]
    paper: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """key: of the command line. title, note: for the page. base: label of the row that the others are compared with."""

    key: str
    title: str
    note: str
    rows: tuple[Row, ...]
    base: str


@dataclass(frozen=True, slots=True)
class RowMaker:
    """Makes rows of one pool of pictures. tasks: where their trainings are put. commands: of that pool."""

    tasks: MutableMapping[str, Task]
    commands: Commands

    def __call__(self, label: str, student: Student, value: int, *, seeds: int = 1, paper: str = "") -> Row:
        """value: how early; each further seed comes four places later, or eight for what can wait."""
        pace = 4 if value < CAN_WAIT else 8
        made = [self.commands.student(student, seed, value + pace * seed) for seed in range(seeds)]
        self.tasks.update((task.name, task) for task in made)
        return Row(label, tuple(task.name for task in made), paper)
