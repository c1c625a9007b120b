"""The ledger: one record per finished shard, the only thing that makes a shard exist for a reader."""

from collections.abc import Mapping
from dataclasses import dataclass

from data.store.address import open_place
from data.store.canonical import canonical_json, sealed, unsealed
from data.store.layout import LEDGER
from data.store.place import Address, Place


@dataclass(frozen=True, slots=True)
class LedgerRecord:
    """first, count: the shard's pictures. rejected: key and reason of each rejected one.

    files: path inside the store to (bytes, hex SHA-256). attributes_sha256: of the group's `zarr.json` (metadata.py).
    """

    shard: int
    first: int
    count: int
    rejected: tuple[tuple[str, str], ...]
    files: Mapping[str, tuple[int, str]]
    attributes_sha256: str


def record_bytes(record: LedgerRecord) -> bytes:
    """Content of the record's file: canonical JSON, sealed by `self_sha256`; no time, host or absolute path."""
    return canonical_json(
        sealed(
            {
                "shard": record.shard,
                "first": record.first,
                "count": record.count,
                "rejected": [{"key": key, "reason": reason} for key, reason in record.rejected],
                "files": {path: list(entry) for path, entry in record.files.items()},
                "attributes_sha256": record.attributes_sha256,
            }
        )
    )


def parse_record(data: bytes) -> LedgerRecord:
    """The inverse of `record_bytes`. Raises ValueError when a byte of it changed."""
    value = unsealed(data)
    try:
        rejected = tuple((entry["key"], entry["reason"]) for entry in value.pop("rejected"))
        files = {path: (int(size), str(digest)) for path, (size, digest) in value.pop("files").items()}
        return LedgerRecord(rejected=rejected, files=files, **value)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("not a ledger record") from error


def finished_shards(store: Address | Place) -> list[int]:
    """Shards that have a record, in order; one listing of the folder, nothing is read."""
    names = [name.removesuffix(".json") for name in open_place(store).names(LEDGER) if name.endswith(".json")]
    return sorted(int(name) for name in names if name.isascii() and name.isdigit() and len(name) >= 8)
