"""From what the user names to the place that it is."""

from pathlib import Path

from data.store.folder_place import FolderPlace
from data.store.place import Address, Place


def open_place(store: Address | Place) -> Place:
    """The place at an address."""
    return FolderPlace(Path(store)) if isinstance(store, Path | str) else store
