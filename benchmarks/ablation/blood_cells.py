"""The rows of the blood cells, by their own lists."""

from ablation.pool import UNLABELLED_SHARES
from ablation.tables import EVERYTHING, OVERLAP, UNDISTILLED, RowMaker, Table
from ablation.tasks import Student


def blood_cells(row: RowMaker) -> Table:
    """Its teacher is the demo's, which has seen the annotations of all training and validation pictures."""
    store = row.commands.store("bccd/store", row.commands.pool.images.parent / "teacher.safetensors")
    row.tasks[store.name] = store
    alone = row(
        "student alone",
        Student("bccd/alone", store.name, ("labelled",), flags=UNDISTILLED, steps_share=0.5),
        6,
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
        )
        for share in (0, *UNLABELLED_SHARES)
    ]
    overlap = row.commands.store(
        "bccd/store-overlap", row.commands.pool.images.parent / "teacher.safetensors", *OVERLAP
    )
    row.tasks[overlap.name] = overlap
    series.append(
        row(
            "full, 100 % of them, FM-NMS of overlapping boxes only",
            Student("bccd/overlap", overlap.name, EVERYTHING, steps_share=0.5),
            7,
        )
    )
    return Table(
        "bccd",
        "Blood cells",
        "BCCD by its own lists, a quarter of the training pictures annotated; half of the steps of the tables above.",
        (alone, *series),
        alone.label,
    )
