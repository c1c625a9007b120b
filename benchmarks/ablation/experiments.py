"""The rows: which trainings make which line of which table (docs/methods.md 1.6 has the paper's figures)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ablation.pool import UNLABELLED_SHARES, Pool
from ablation.profile import Profile
from ablation.tasks import Commands, Student, Task

THRESHOLDS = (0.3, 0.5, 0.7)
EVERYTHING = ("labelled", "unlabelled-100")
UNDISTILLED = ("--distillation-weight", "0")
CAN_WAIT = 4
STORES = {
    "local-max, the default": "carla/store",
    "greedy": "carla/store-greedy",
    "of overlapping boxes only": "carla/store-overlap",
    "within a cell (window 1)": "carla/store-cell",
    "none": "carla/store-off",
}
"""FM-NMS to the store that was made with it, all by one teacher."""
OVERLAP = ("--fm-nms", "overlap")
LEVELS = ((5, 6), (4, 6), (3, 6), (2, 6), (3, 7))


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

    def row(
        label: str, student: Student, value: int, *, seeds: int = 1, paper: str = "", by: Commands = commands
    ) -> Row:
        """value: how early; each further seed comes four places later, or eight for what can wait."""
        pace = 4 if value < CAN_WAIT else 8
        made = [by.student(student, seed, value + pace * seed) for seed in range(seeds)]
        tasks.update((task.name, task) for task in made)
        return Row(label, tuple(task.name for task in made), paper)

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
                    seeds=more_seeds if weight > 1 else seeds,
                )
                for weight in (0.5, 2)
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
            _architecture(row, mine),
            _bccd(row, tasks, Commands(pools["bccd"], profile, work)),
        ),
    )


def _architecture(row, store: str) -> Table:  # type: ignore[no-untyped-def]
    def student(name: str, *flags: str, model: str = "f-yolo") -> Student:
        return Student(
            f"carla/net-{name}",
            store,
            EVERYTHING,
            "annotations",
            (*UNDISTILLED, *flags),
            ("--model", model),
            steps_share=0.5,
        )

    baseline = row("Tiny-YOLO", student("tiny-yolo", model="tiny-yolo"), 8, paper="54.2")
    rows = [baseline]
    printed = {
        (5, 6): ("55.8", "56.7"),
        (4, 6): ("56.1", "57.6"),
        (3, 6): ("58.1", "58.4"),
        (2, 6): ("57.7", "58.2"),
        (3, 7): ("58.4", "58.9"),
    }
    for levels in LEVELS:
        for merge, figure in zip(("max-pool", "stack"), printed[levels], strict=True):
            name = f"{levels[0]}-{levels[1]}"
            flags = ("--merged", name, "--merge", merge, "--no-extra-1x1")
            rows.append(row(f"Conv{name}, {merge}", student(f"{name}-{merge}", *flags), 9, paper=figure))
    rows += [
        row("Conv3-7 and the 1×1 layers, max-pool", student("f-yolo-max-pool", "--merge", "max-pool"), 9, paper="58.6"),
        row("Conv3-7 and the 1×1 layers, stack: F-YOLO, reading A", student("f-yolo"), 8, paper="59.4"),
        row("F-YOLO, reading B", student("f-yolo-b", "--reading", "B"), 9),
    ]
    return Table(
        "architecture",
        "Architecture",
        "Trained on the annotations of all training pictures, without a teacher; half of the steps of other tables.",
        tuple(rows),
        baseline.label,
    )


def _bccd(row, tasks: dict[str, Task], commands: Commands) -> Table:  # type: ignore[no-untyped-def]
    """Its teacher is the demo's, which has seen the annotations of all training and validation pictures."""
    store = commands.store("bccd/store", commands.pool.images.parent / "teacher.safetensors")
    tasks[store.name] = store
    alone = row(
        "student alone",
        Student("bccd/alone", store.name, ("labelled",), flags=UNDISTILLED, steps_share=0.5),
        6,
        by=commands,
    )
    series = [
        row(
            f"full, {share} % of the unlabelled pictures",
            Student(
                f"bccd/full-{share}",
                store.name,
                ("labelled", *((f"unlabelled-{share}",) if share else ())),
                steps_share=0.5,
            ),
            7,
            by=commands,
        )
        for share in (0, *UNLABELLED_SHARES)
    ]
    overlap = commands.store("bccd/store-overlap", commands.pool.images.parent / "teacher.safetensors", *OVERLAP)
    tasks[overlap.name] = overlap
    series.append(
        row(
            "full, 100 % of them, FM-NMS of overlapping boxes only",
            Student("bccd/overlap", overlap.name, EVERYTHING, steps_share=0.5),
            7,
            by=commands,
        )
    )
    return Table(
        "bccd",
        "Blood cells",
        "BCCD by its own lists, a quarter of the training pictures annotated; half of the steps of the tables above.",
        (alone, *series),
        alone.label,
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
