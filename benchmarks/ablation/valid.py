"""Which results still hold: those of the very commands that would be run now, built on results that hold."""

from collections.abc import Mapping

from ablation.ledger import Ledger, identity
from ablation.tasks import Task


def settled(tasks: Mapping[str, Task], ledger: Ledger) -> dict[str, str]:
    """Names of the tasks whose results hold, to the digest of what each made."""
    made: dict[str, str] = {}

    def holds(task: Task) -> bool:
        if task.name in made:
            return True
        if not all(holds(tasks[name]) for name in task.after):
            return False
        result = ledger.find(task.name, identity(task.command, {name: made[name] for name in task.after}))
        if result is not None:
            made[task.name] = result["made"]
        return result is not None

    for task in tasks.values():
        holds(task)
    return made
