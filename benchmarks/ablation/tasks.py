"""What there is to do, as commands: teachers, stores, pseudo-labels, students; each needs some that come before it."""

from dataclasses import dataclass
from pathlib import Path

from ablation.pool import Pool
from ablation.profile import Profile


@dataclass(frozen=True, slots=True)
class Task:
    """name: unique, a path below the work folder. kind: student, teacher, store, pseudo or merged. after: names of the
    tasks it needs. command: the arguments of `distill`, or of its own step for pseudo and merged. value: how early it
    should run, lower first."""

    name: str
    kind: str
    command: tuple[str, ...]
    after: tuple[str, ...] = ()
    pool: str = "carla"
    value: int = 0


@dataclass(frozen=True, slots=True)
class Student:
    """A training by what makes it differ. store: name of the store task. lists: of the pool. annotations: `known`,
    `annotations`, or the name of a pseudo-label task. flags: beside the profile's recipe. steps_share: of the profile's
    steps; the same for all rows of a table."""

    name: str
    store: str
    lists: tuple[str, ...]
    annotations: str = "known"
    flags: tuple[str, ...] = ()
    model: tuple[str, ...] = ("--model", "f-yolo")
    steps_share: float = 1.0


class Commands:
    """Tasks of one pool in one profile. Commands run in the work folder and name what is below it, wherever it is."""

    def __init__(self, pool: Pool, profile: Profile, work: Path) -> None:
        self.pool, self.profile, self.work = pool, profile, work

    def below(self, path: Path) -> str:
        """A path as the commands name it."""
        return str(path.relative_to(self.work))

    def teacher(self, name: str, annotations: str, lists: tuple[str, ...], steps_share: float = 1.0) -> Task:
        """A YOLOv2 trained on these lists, judged on the validation list."""
        profile = self.profile
        shape = ("--model", "yolov2", "--width", f"{profile.teacher_width:g}", "--anchors", "kmeans")
        command = (
            *("train", *shape, "--images", self.below(self.pool.images), "--names", self.below(self.pool.names)),
            *self._judged(annotations, lists),
            *("--input-size", str(profile.input_size)),
            *self._length(steps_share * profile.teacher_steps, self.pool.count(*lists)),
            *("--seed", "0", *self._machine(), *profile.recipe, "--run", name),
        )
        return Task(name, "teacher", command, pool=self.pool.name)

    def store(self, name: str, teacher: Task | Path, *flags: str) -> Task:
        """Everything but the test pictures, labelled by a teacher of this ablation or by a file."""
        source = teacher.name if isinstance(teacher, Task) else self.below(teacher)
        after = (teacher.name,) if isinstance(teacher, Task) else ()
        command = (
            *("label", self.below(self.pool.images), "--teacher", source, *flags),
            *("--device", self.profile.device, "--shard-size", "64", "--store", name),
        )
        return Task(name, "store", command, after, self.pool.name)

    def pseudo(self, name: str, teacher: Task, threshold: float) -> Task:
        """Truth of the known pictures, and the teacher's boxes above the threshold as truth of the others."""
        return Task(name, "pseudo", (teacher.name, f"{threshold:g}"), (teacher.name,), self.pool.name)

    def merged(self, name: str, teacher: Task, like: Task) -> Task:
        """A store like another, of labels merged over flips and scales."""
        command = (teacher.name, like.name)
        return Task(name, "merged", command, (teacher.name, like.name), self.pool.name)

    def student(self, student: Student, seed: int, value: int) -> Task:
        """One training, of its share of the profile's steps to the nearest whole epoch."""
        profile, name = self.profile, f"{student.name}/seed-{seed}"
        command = (
            *("train", *student.model, "--width", f"{profile.student_width:g}"),
            *("--store", student.store, "--images", self.below(self.pool.images)),
            *("--names", self.below(self.pool.names), *self._judged(student.annotations, student.lists)),
            *self._length(student.steps_share * profile.steps, self.pool.count(*student.lists)),
            *("--seed", str(seed), *self._machine(), *profile.recipe, *student.flags, "--run", name),
        )
        known = {"known", "annotations"}
        after = (student.store, *(() if student.annotations in known else (student.annotations,)))
        return Task(name, "student", command, after, self.pool.name, value)

    def _judged(self, annotations: str, lists: tuple[str, ...]) -> tuple[str, ...]:
        folders = {"known": self.below(self.pool.known), "annotations": self.below(self.pool.annotations)}
        return (
            *("--annotations", folders.get(annotations, annotations)),
            *(flag for name in lists for flag in ("--train-list", self.below(self.pool.lists[name]))),
            *("--val-list", self.below(self.pool.lists["validation"])),
        )

    def _length(self, steps: float, pictures: int) -> tuple[str, ...]:
        batch = self.profile.batch_size
        return ("--batch-size", str(batch), "--epochs", str(max(1, round(steps / max(1, pictures // batch)))))

    def _machine(self) -> tuple[str, ...]:
        return ("--device", self.profile.device)
