"""The rows that differ by the network: Tiny-YOLO, and what of it F-YOLO merges, how."""

from ablation.tables import EVERYTHING, UNDISTILLED, RowMaker, Table
from ablation.tasks import Student

LEVELS = ((5, 6), (4, 6), (3, 6), (2, 6), (3, 7))


def architecture(row: RowMaker, store: str) -> Table:
    """The rows of the paper's Table 1. store: whose pictures are trained on, without its labels."""

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
