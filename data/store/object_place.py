"""A store below a prefix in a bucket. No locks and no renames: a put is atomic, and one of a record is conditional."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import zarr

from data.errors import RequestError
from data.store.files import files_below
from data.store.layout import GROUP, MANIFEST
from data.store.object_claims import ObjectClaims
from data.store.objects import Objects
from data.store.work import clean_staging, staging_folder


class ObjectPlace:
    """A store's objects (`place.Place`). What is staged lies on this machine's disk for temporary files."""

    def __init__(self, url: str) -> None:
        """url: s3://bucket/prefix, without a slash at its end. Raises as `Objects` does; the bucket is asked once."""
        next(Objects(url, first=True).below(), None)  # a missing bucket looks like a missing object later
        self.objects = Objects(url)
        self.work = Objects(f"{url}.work")

    def __str__(self) -> str:
        return self.objects.url

    @property
    def address(self) -> str:
        return self.objects.url

    def exists(self, name: str) -> bool:
        return self.objects.exists(name)

    def holds_folder(self, name: str) -> bool:
        return next(self.objects.below(name), None) is not None

    def read(self, name: str) -> bytes:
        return self.objects.read(name)

    def size(self, name: str) -> int:
        return self.objects.head(name)["size"]

    def sha256(self, name: str) -> tuple[int, str]:
        return self.objects.sha256(name)

    def holds(self, name: str, entry: tuple[int, str]) -> bool:
        try:
            return self.sha256(name) == entry
        except FileNotFoundError:
            return False

    def names(self, folder: str) -> list[str]:
        return self.objects.names(folder)

    def files(self) -> list[str]:
        return sorted(self.objects.below())

    def open_array(self, name: str) -> Any:
        store = zarr.storage.ObjectStore(self.objects.store, read_only=True)
        with self.reading():
            return zarr.open_array(store, path=name, mode="r", zarr_format=3)  # or it asks for other formats' files too

    def reading(self) -> AbstractContextManager[None]:
        return self.objects.errors("")

    def require_free(self) -> None:
        """What another worker leaves that dies while it makes the store is no hindrance: `adopt` compares it."""
        stray = next((name for name in self.objects.below() if name == GROUP or not _made_first(name)), None)
        if stray is not None:
            raise RequestError(f"{self}/{stray} is there already: name a new prefix for the store.")

    def adopt(self, folder: Path) -> bool:
        """The group's document is put last: a store without it is none.

        Nothing is put over what differs from it: its maker may be about to put its own group. Raises RequestError.
        """
        for name in files_below(folder):
            if name != GROUP and not self._put_or_same(name, (folder / name).read_bytes()):
                raise RequestError(
                    f"{self}/{name} is of another store that is being made, or whose making was given up: delete what "
                    "lies there, or name another prefix."
                )
        return self._put_or_same(GROUP, (folder / GROUP).read_bytes())

    def put(self, staged: Path, name: str) -> None:
        self.objects.write(name, staged)

    def put_new(self, staged: Path, name: str) -> None:
        """By a conditional put, If-None-Match: *."""
        self.objects.create(name, staged.read_bytes())

    def settle(self, names: Iterable[str]) -> None:
        """An object is kept when its put returns."""

    def delete(self, name: str) -> None:
        self.objects.delete(name)

    def staging(self) -> AbstractContextManager[Path]:
        return staging_folder(self._scratch())

    def clean_staging(self) -> int:
        return clean_staging(self._scratch())

    def room(self) -> int:
        return shutil.disk_usage(tempfile.gettempdir()).free

    def lock(self, shard: int) -> AbstractContextManager[bool]:
        return nullcontext(False)

    def claims(self, worker: str, expiry_s: float) -> ObjectClaims:
        return ObjectClaims(self.work, worker, expiry_s)

    def _put_or_same(self, name: str, data: bytes) -> bool:
        try:
            self.objects.create(name, data)
        except FileExistsError:
            return self.objects.read(name) == data
        return True

    def _scratch(self) -> Path:
        """Stands for the store on this machine, for `data.store.work`; only its `.work` is ever there."""
        mine = Path(tempfile.gettempdir()) / f"distill-{os.getuid()}"
        mine.mkdir(mode=0o700, exist_ok=True)
        if mine.stat().st_uid != os.getuid():
            raise RequestError(f"{mine} is somebody else's: set TMPDIR to a folder of your own.")
        return mine / hashlib.sha256(self.address.encode()).hexdigest()[:16]


def _made_first(name: str) -> bool:
    """Whether an object is put when a store is made, before its group."""
    return name == MANIFEST or name.endswith(f"/{GROUP}")
