"""The group's `zarr.json`: the attribute `distill`, and beside it the digests of every other metadata file.

`distill_metadata` = {files {path: sha256}, self_sha256}, the last over the whole document without that entry. The
`attributes_sha256` of a ledger record is the SHA-256 of this one file: through it a record vouches for all metadata,
and by `manifest_sha256` for the list of pictures.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from data.store.canonical import canonical_json, parse_canonical, sha256_bytes
from data.store.schema import StoreAttributes, attributes_from_json, attributes_to_json


@dataclass(frozen=True, slots=True)
class GroupMetadata:
    """files: path inside the store to hex SHA-256, of every `zarr.json` but the group's own."""

    attributes: StoreAttributes
    files: Mapping[str, str]

    @property
    def sha256(self) -> str:
        """Hex digest of the group's `zarr.json`: `attributes_sha256` in the ledger."""
        return sha256_bytes(group_bytes(self))


def group_bytes(metadata: GroupMetadata) -> bytes:
    """Content of `STORE/zarr.json`, readable by any Zarr v3 library."""
    document = _document(metadata)
    document["attributes"]["distill_metadata"]["self_sha256"] = sha256_bytes(canonical_json(document))
    return canonical_json(document)


def parse_group(data: bytes) -> GroupMetadata:
    """The inverse of `group_bytes`. Raises ValueError when it is of another schema, or a byte of it changed."""
    document = parse_canonical(data)
    try:
        attributes = document["attributes"]
        metadata = GroupMetadata(attributes_from_json(attributes["distill"]), attributes["distill_metadata"]["files"])
        same = group_bytes(metadata) == data
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("not the group of a label store") from error
    if not same:
        raise ValueError("its content differs from its self_sha256")
    return metadata


def _document(metadata: GroupMetadata) -> dict[str, Any]:
    return {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": {
            "distill": attributes_to_json(metadata.attributes),
            "distill_metadata": {"files": dict(metadata.files)},
        },
    }
