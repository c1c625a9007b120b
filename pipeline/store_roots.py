"""Where a store's pictures lie on this machine: a store names no absolute path, so `label` leaves a note beside it."""

import json
from collections.abc import Mapping
from pathlib import Path

from data.errors import RequestError
from data.store.address import open_place
from data.store.place import Address, Place

_FILE = "roots.json"


def remember_roots(store: Address | Place, roots: Mapping[str, Path]) -> None:
    """Note root label to folder in `STORE.work/`, replacing an older note."""
    note = json.dumps({label: str(path) for label, path in sorted(roots.items())}, indent=2) + "\n"
    work = open_place(store).work
    if not work.exists(_FILE) or work.read(_FILE) != note.encode():
        work.write(_FILE, note.encode())


def remembered_roots(store: Address | Place) -> dict[str, Path]:
    """Root label to folder, as the last `label` on this machine left it; empty where it is gone.

    Raises RequestError where the note is damaged.
    """
    work = open_place(store).work
    if not work.exists(_FILE):
        return {}
    note = work.read(_FILE)
    try:
        return {label: Path(path) for label, path in json.loads(note).items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise RequestError(
            f"{store}.work/{_FILE} is damaged; delete it and say by --images where the pictures of {store} are"
        ) from error
