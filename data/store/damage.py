"""The errors of a store whose files are not what its ledger says, or not what they were when it was opened."""

from data.errors import WorkLeftError


class StoreDamageError(WorkLeftError):
    """A file of the store is missing, truncated or altered; nothing read from it may be used.

    shard: int, or None for a file that belongs to no shard. file: path inside the store. problem: what is wrong.
    """

    def __init__(self, store: str, shard: int | None, file: str, problem: str) -> None:
        self.shard = shard
        self.file = file
        self.problem = problem
        if shard is None:
            mend = "Restore it from a copy, or label anew into another folder."
        else:
            mend = f"Delete ledger/{shard:08d}.json there and run the same label command again: it redoes this shard."
        place = f"{store}: {file}" if shard is None else f"{store}: shard {shard}, {file}"
        super().__init__(f"{place}: {problem}. {mend}")


class StoreGrownError(WorkLeftError):
    """The store has another list of pictures than when it was opened; nothing in it is damaged."""

    def __init__(self, store: str) -> None:
        super().__init__(
            f"{store} has grown since it was opened here. The same command goes on with what is there now."
        )
