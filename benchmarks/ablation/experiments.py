"""The rows: which trainings make which line of which table (docs/methods.md 1.6 has the paper's figures)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ablation.architecture import architecture
from ablation.blood_cells import blood_cells
from ablation.pool import UNLABELLED_SHARES, Pool
from ablation.profile import Profile
from ablation.tables import EVERYTHING, OVERLAP, UNDISTILLED, Row, RowMaker, Table
from ablation.tasks import Commands, Student, Task

THRESHOLDS = (0.3, 0.5, 0.7)
STORES = {
    "local-max, the default": "carla/store",
    "greedy": "carla/store-greedy",
    "of overlapping boxes only": "carla/store-overlap",
    "within a cell (window 1)": "carla/store-cell",
    "none": "carla/store-off",
}
"""FM-NMS to the store that was made with it, all by one teacher."""


@dataclass(frozen=True, slots=True)
class Ablation:
    """Tasks in no order, and the tables they fill."""

    tasks: Mapping[str, Task]
    tables: tuple[Table, ...]


def make_ablation(pools: Mapping[str, Pool], profile: Profile, work: Path) -> Ablation:
    """Every task and table in one profile."""
    tasks: dict[str, Task] = {}
    commands = Commands(pools["carla"], profile, work)
    strong = commands.teacher("carla/teacher-strong", "annotations", EVERYTHING)
    weak = commands.teacher("carla/teacher-weak", "known", ("labelled",), steps_share=0.5)
    store = commands.store("carla/store", strong)
    greedy = commands.store("carla/store-greedy", strong, "--fm-nms", "greedy")
    cell = commands.store("carla/store-cell", strong, "--fm-nms-window", "1")
    overlap = commands.store("carla/store-overlap", strong, *OVERLAP)
    unfiltered = commands.store("carla/store-off", strong, "--fm-nms", "off")
    weak_store = commands.store("carla/store-weak", weak)
    merged = commands.merged("carla/store-merged", strong, store)
    pseudo = {each: commands.pseudo(f"carla/pseudo-{each:g}", strong, each) for each in THRESHOLDS}
    for task in (strong, weak, store, greedy, cell, overlap, unfiltered, weak_store, merged, *pseudo.values()):
        tasks[task.name] = task

    row = RowMaker(tasks, commands)
    seeds, more_seeds, mine = profile.seeds, profile.more_seeds, store.name
    alone = row(
        "student alone", Student("carla/alone", mine, ("labelled",), flags=UNDISTILLED), 1, seeds=seeds, paper="59.4"
    )
    supervised = row(
        "full, labelled pictures only", Student("carla/full-0", mine, ("labelled",)), 2, seeds=seeds, paper="60.3"
    )
    everything = row(
        "full, and all unlabelled pictures", Student("carla/full", mine, EVERYTHING), 1, seeds=more_seeds, paper="62.3"
    )
    hard = [
        row(
            f"hard pseudo-labels above {threshold:g}",
            Student(f"carla/pseudo-student-{threshold:g}", mine, EVERYTHING, annotations=task.name, flags=UNDISTILLED),
            4,
            seeds=seeds,
        )
        for threshold, task in pseudo.items()
    ]
    distillation = Table(
        "distillation",
        "Distillation",
        "Unlabelled pictures are learnt from the teacher alone. Rows below the third have all unlabelled pictures too.",
        (
            alone,
            supervised,
            everything,
            row(
                "without FM-NMS",
                Student("carla/off", unfiltered.name, EVERYTHING),
                3,
                seeds=more_seeds,
                paper="57.1 (labelled only)",
            ),
            row("greedy FM-NMS", Student("carla/greedy", greedy.name, EVERYTHING), 5, seeds=seeds),
            row(
                "FM-NMS of overlapping boxes only",
                Student("carla/overlap", overlap.name, EVERYTHING),
                2,
                seeds=more_seeds,
            ),
            row("FM-NMS within a cell (window 1)", Student("carla/cell", cell.name, EVERYTHING), 4, seeds=seeds),
            row(
                "without objectness scaling",
                Student("carla/unscaled", mine, EVERYTHING, flags=("--no-objectness-scaling",)),
                3,
                seeds=more_seeds,
                paper="59.2 (labelled only)",
            ),
            *(
                row(
                    f"λ_D = {weight:g}",
                    Student(
                        f"carla/weight-{weight:g}", mine, EVERYTHING, flags=("--distillation-weight", f"{weight:g}")
                    ),
                    5,
                    seeds=several,
                )
                for weight, several in ((0.5, seeds), (2, more_seeds))
            ),
            *hard,
        ),
        everything.label,
    )
    unlabelled = Table(
        "unlabelled",
        "Unlabelled pictures",
        "The share of the unlabelled pictures that the teacher labels; the same number of steps.",
        (
            Row("0 %", supervised.tasks, "60.3"),
            *(
                row(
                    f"{share} %",
                    Student(f"carla/full-{share}", mine, ("labelled", f"unlabelled-{share}")),
                    6,
                    seeds=seeds,
                    paper={25: "61.5", 50: "61.8"}[share],
                )
                for share in UNLABELLED_SHARES[:-1]
            ),
            Row("100 %", everything.tasks, "62.3"),
        ),
        "0 %",
    )
    teachers = Table(
        "teacher",
        "Teacher",
        "Strong: has seen the annotations of all training pictures. Weak: of the labelled part only, for half of the "
        "steps. Merged: labels of six views (mirrored or not, at scales of 0.8, 1 and 1.25) merged into one.",
        (
            alone,
            Row("strong teacher, one pass", everything.tasks),
            row("strong teacher, merged", Student("carla/merged", merged.name, EVERYTHING), 7),
            row("weak teacher, one pass", Student("carla/weak", weak_store.name, EVERYTHING), 6),
        ),
        alone.label,
    )
    augmentation = Table(
        "augmentation",
        "Augmentation",
        "Of the distilled student with all unlabelled pictures.",
        (
            row("none", Student("carla/augment-none", mine, EVERYTHING, flags=("--augment", "none")), 7),
            row(
                "photometric",
                Student("carla/augment-photometric", mine, EVERYTHING, flags=("--augment", "photometric")),
                7,
            ),
            Row("and geometric: soft labels move with the picture", everything.tasks),
        ),
        "none",
    )
    return Ablation(
        tasks,
        (
            distillation,
            unlabelled,
            teachers,
            augmentation,
            architecture(row, mine),
            blood_cells(RowMaker(tasks, Commands(pools["bccd"], profile, work))),
        ),
    )


def in_order(tasks: Mapping[str, Task], wanted: Sequence[str]) -> list[Task]:
    """The wanted tasks by value, each behind what it needs."""
    placed: dict[str, Task] = {}

    def place(name: str) -> None:
        if name in placed:
            return
        for before in tasks[name].after:
            place(before)
        placed[name] = tasks[name]

    for name in sorted(wanted, key=lambda each: (tasks[each].value, each)):
        place(name)
    return list(placed.values())
