"""One way to write JSON, so that equal values are equal bytes, and the digests made of those bytes."""

import hashlib
import json
from pathlib import Path
from typing import Any


def canonical_json(value: Any) -> bytes:
    """Sorted keys, no spaces, UTF-8, one line without its end. Raises ValueError for NaN and lone surrogates."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def parse_canonical(data: bytes) -> Any:
    """The value of a line that `canonical_json` wrote.

    Raises ValueError unless writing the value again gives the same bytes: a flipped bit can otherwise leave the value
    as it was (`1e5` and `1E5`) and go unseen.
    """
    value = json.loads(data)
    if canonical_json(value) != data:
        raise ValueError("not canonical JSON")
    return value


def sha256_bytes(data: bytes) -> str:
    """Hex digest."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> tuple[int, str]:
    """Size in bytes and hex digest, read in bounded memory. OSError passes through."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return file.tell(), digest.hexdigest()


def sealed(value: dict[str, Any]) -> dict[str, Any]:
    """The value with `self_sha256`, the digest of its canonical JSON without that entry."""
    return {**value, "self_sha256": sha256_bytes(canonical_json(value))}


def unsealed(data: bytes) -> dict[str, Any]:
    """The value that `sealed` was given, from its canonical JSON. Raises ValueError when a byte of it changed."""
    value = parse_canonical(data)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    if value.pop("self_sha256", None) != sha256_bytes(canonical_json(value)):
        raise ValueError("self_sha256 differs from its content")
    return value
