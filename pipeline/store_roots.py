"""Where a store's pictures lie on this machine: a store names no absolute path, so `label` leaves a note beside it."""

import json
from collections.abc import Mapping
from pathlib import Path

from data.errors import RequestError
from data.store.layout import work_path

_FILE = "roots.json"


def remember_roots(store: Path, roots: Mapping[str, Path]) -> None:
    """Note root label to folder in `STORE.work/`, replacing an older note."""
    work = work_path(store)
    work.mkdir(exist_ok=True)
    (work / _FILE).write_text(json.dumps({label: str(path) for label, path in roots.items()}, indent=2) + "\n")


def remembered_roots(store: Path) -> dict[str, Path]:
    """Root label to folder, as the last `label` on this machine left it; empty where it is gone.

    Raises RequestError where the note is damaged.
    """
    file = work_path(store) / _FILE
    if not file.exists():
        return {}
    try:
        return {label: Path(path) for label, path in json.loads(file.read_text()).items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise RequestError(
            f"{file} is damaged; delete it and say by --images where the pictures of {store} are"
        ) from error
