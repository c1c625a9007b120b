"""What helps a store that `distill verify` found wanting: the last sentence of its message."""

from collections.abc import Sequence

from data.store.verify import Damage

OTHER_TEACHER = (
    "Its files are as they were written, by another teacher: give --teacher (and --cfg) that one, or label with this "
    "one into another store"
)

OTHER_LABELS = (
    "Its files are as they were written, but hold something else than this teacher says of these pictures: no repair "
    "helps, label anew into another store"
)


def store_remedy(damage: Sequence[Damage], *, repaired: bool) -> str:
    """Of what `verify_store` found. repaired: the records of damaged shards have been dropped."""
    sentences = []
    shards = [item for item in damage if item.shard is not None]
    if shards and (repaired or all(item.unfinished for item in shards)):
        sentences.append("The label command that began the store makes these shards")
    elif shards:
        sentences.append(
            "distill verify --repair drops the ledger records of damaged shards; then the label command that began the "
            "store makes what is missing"
        )
    if any(item.stray for item in damage):
        sentences.append("Delete the files that belong to nothing")
    if any(item.shard is None and not item.stray for item in damage):
        sentences.append(
            "Metadata and manifest can't be made again: restore them from a copy, or label anew into another store"
        )
    return ". ".join(sentences)
