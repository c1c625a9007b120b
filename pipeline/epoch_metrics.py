"""What an epoch's batches add up to: the row of metrics.jsonl, and the check that the distillation did something."""

from collections.abc import Mapping
from typing import Any

from data.errors import WorkLeftError
from stages.student.ranks import Ranks
from stages.student.samples import Batch
from stages.student.trainer import ALIKE

DISTILLATION = "distillation/"
CLASS_TERM = "distillation/class"
COUNTS = ("batches", "pictures", "labelled", "with_teacher", "kept_slots", "collisions", "problems")


class EpochMetrics:
    """Sums over an epoch. They travel with the checkpoint, so a resumed epoch's row is the uninterrupted one's."""

    def __init__(self, sums: Mapping[str, float] | None = None) -> None:
        self.sums: dict[str, float] = dict(sums or {})

    def add(self, terms: Mapping[str, float], batch: Batch) -> None:
        """Take in one step's loss terms and what its batch held."""
        counts = {
            "batches": 1,
            "pictures": len(batch.labelled_B),
            "labelled": int(batch.labelled_B.sum()),
            "with_teacher": int((batch.weights_SB > 0).any(dim=0).sum()),
            "kept_slots": batch.kept_slots,
            "collisions": batch.collisions,
            "problems": len(batch.problems),
        }
        for name, value in {**counts, **terms}.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def of_all(self, ranks: Ranks) -> "EpochMetrics":
        """The metrics of all ranks together, each of which has added its slices."""
        return EpochMetrics(ranks.sum_named(self.sums, ALIKE | {"batches"}))

    def check_distillation(self, classes: int, with_teacher: bool = True) -> None:
        """Raise WorkLeftError where a distillation term stayed exactly zero though there was something to learn.

        That is a pairing gone wrong or a switch that does nothing, and no falling loss would show it. With a single
        class the softmax is always 1, so the class term is zero by right. Also raised where every picture of the stores
        that came along (with_teacher: there are some) had to be masked: then they are not those that were labelled.
        """
        if with_teacher and self.sums.get("problems") and not self.sums.get("with_teacher"):
            raise WorkLeftError(
                f"no picture of a whole epoch had soft labels that could be used: {self.sums['problems']:.0f} differ "
                "from the pictures that were labelled, or can't be decoded. Check that --images names the folder that "
                "was labelled, then begin a new run"
            )
        if not self.sums.get("kept_slots"):
            return
        for name, value in self.sums.items():
            exempt = name == CLASS_TERM and classes == 1
            if name.startswith(DISTILLATION) and value == 0 and not exempt:
                raise WorkLeftError(
                    f"the distillation term {name} was exactly zero over a whole epoch with "
                    f"{self.sums['kept_slots']:.0f} kept slots: nothing is distilled. Check the store with "
                    "`distill verify` and `distill show`, and that --distillation-weight is not 0"
                )

    def row(self) -> dict[str, Any]:
        """Means of the terms over the batches, and the counts."""
        batches = max(self.sums.get("batches", 0), 1)
        counts = {name: int(self.sums.get(name, 0)) for name in COUNTS}
        return counts | {name: value / batches for name, value in self.sums.items() if name not in counts}
