"""From what the user names to the place that it is."""

import re
from pathlib import Path

from data.errors import RequestError
from data.store.folder_place import FolderPlace
from data.store.place import Address, Place

_URL = re.compile(r"(s3|gs|az)://[^/?#\s]+(/[^/?#]+)+")


def store_address(text: str) -> Address:
    """A folder, or the URL of a prefix in a bucket. Raises RequestError for any other URL."""
    if "://" not in text:
        return Path(text)
    url = text.rstrip("/")
    if not _URL.fullmatch(url):
        raise RequestError(
            f"{text} is no place for a store: give a folder, or s3://BUCKET/PREFIX (gs:// and az:// likewise)."
        )
    return url


def open_place(store: Address | Place) -> Place:
    """The place at an address. Raises RequestError for a URL that names none, or where its bucket can't be read."""
    if isinstance(store, str):
        store = store_address(store)
    if isinstance(store, Path):
        return FolderPlace(store)
    if isinstance(store, str):
        from data.store.object_place import ObjectPlace

        return ObjectPlace(store)
    return store
