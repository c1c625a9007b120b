"""A store in a folder of a file system with hard links and atomic renames."""

import os
import shutil
import uuid
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import zarr

from data.errors import RequestError
from data.store.canonical import sha256_file
from data.store.files import files_below, sync, sync_tree
from data.store.folder_claims import FolderClaims
from data.store.layout import work_path
from data.store.work import clean_staging, shard_lock, staging_folder


class WorkFolder:
    """`STORE.work/` (`place.WorkPlace`)."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def exists(self, name: str) -> bool:
        return (self.path / name).exists()

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def write(self, name: str, data: bytes) -> None:
        # Renamed into place: another process may be reading it.
        new = self._made(f"{uuid.uuid4().hex}.new")
        new.write_bytes(data)
        new.replace(self._made(name))

    def append(self, name: str, data: bytes) -> None:
        with self._made(name).open("ab") as file:
            file.write(data)

    def names(self, folder: str) -> list[str]:
        return sorted(file.name for file in (self.path / folder).glob("*"))

    def _made(self, name: str) -> Path:
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        return file


class FolderPlace:
    """A store's folder (`place.Place`)."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def address(self) -> Path:
        return self.path

    @property
    def work(self) -> WorkFolder:
        return WorkFolder(work_path(self.path))

    def exists(self, name: str) -> bool:
        return (self.path / name).exists()

    def holds_folder(self, name: str) -> bool:
        return (self.path / name).exists()

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def size(self, name: str) -> int:
        return (self.path / name).stat().st_size

    def sha256(self, name: str) -> tuple[int, str]:
        return sha256_file(self.path / name)

    def holds(self, name: str, entry: tuple[int, str]) -> bool:
        try:
            return self.size(name) == entry[0] and self.sha256(name) == entry
        except FileNotFoundError:
            return False

    def names(self, folder: str) -> list[str]:
        with os.scandir(self.path / folder) as entries:
            return [entry.name for entry in entries]

    def files(self) -> list[str]:
        return files_below(self.path)

    def open_array(self, name: str) -> Any:
        return zarr.open_array(self.path / name, mode="r")

    def reading(self) -> AbstractContextManager[None]:
        return nullcontext()

    def require_free(self) -> None:
        path = self.path
        if os.path.lexists(path) and not (path.is_dir() and not any(path.iterdir())):
            raise RequestError(f"{path} exists and is not an empty folder: name a new folder for the store.")

    def adopt(self, folder: Path) -> bool:
        """By one rename; the folder must be on the store's file system, as `staging` is."""
        sync_tree(folder)
        try:
            folder.rename(self.path.resolve())
        except OSError:
            if os.path.lexists(self.path):
                return False
            raise
        sync(self.path.resolve().parent)
        return True

    def put(self, staged: Path, name: str) -> None:
        """By a hard link and a rename of it."""
        link = staged.with_name(f"{staged.name}.next")
        os.link(staged, link)
        link.replace(self.path / name)

    def put_new(self, staged: Path, name: str) -> None:
        """By a hard link."""
        os.link(staged, self.path / name)

    def settle(self, names: Iterable[str]) -> None:
        """The files were synced when they were staged: syncs their folders."""
        for name in names:
            sync((self.path / name).parent)

    def delete(self, name: str) -> None:
        (self.path / name).unlink()
        sync((self.path / name).parent)

    def staging(self) -> AbstractContextManager[Path]:
        self.path.resolve().parent.mkdir(parents=True, exist_ok=True)
        return staging_folder(self.path)

    def clean_staging(self) -> int:
        return clean_staging(self.path)

    def room(self) -> int:
        return shutil.disk_usage(self.path).free

    def lock(self, shard: int) -> AbstractContextManager[bool]:
        return shard_lock(self.path, shard)

    def claims(self, worker: str, expiry_s: float) -> FolderClaims:
        return FolderClaims(self.path, worker, expiry_s=expiry_s)
