"""Where a store lies: what reading, writing and working on it ask of a folder, or of a prefix in a bucket."""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from data.store.claims import Claims

Address = Path | str
"""A folder, or a URL such as s3://bucket/prefix."""


class WorkPlace(Protocol):
    """Small files that workers leave beside a store for one another and for people; all may be deleted at any time.

    Names are relative paths with '/'. Everything raises OSError where the disk or the network fails.
    """

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""

    def read(self, name: str) -> bytes:
        """Raises FileNotFoundError."""

    def write(self, name: str, data: bytes) -> None:
        """Make or replace a file, at once for whoever reads it."""

    def append(self, name: str, data: bytes) -> None:
        """Make a file or add to it; each has one writer."""

    def names(self, folder: str) -> list[str]:
        """File names directly in a folder, sorted; none where there is no such folder."""


class Place(Protocol):
    """A store's files, by their paths inside it with '/'.

    Everything raises OSError where the disk or the network fails, and RequestError where a bucket is missing or denies
    access; FileNotFoundError is that the one file is not there.
    """

    @property
    def address(self) -> Address:
        """As it was given; names the store in messages."""

    @property
    def work(self) -> WorkPlace:
        """`STORE.work/`, or what stands for it."""

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""

    def holds_folder(self, name: str) -> bool:
        """Whether there is such a folder; in a bucket, anything below that name."""

    def read(self, name: str) -> bytes:
        """Raises FileNotFoundError."""

    def size(self, name: str) -> int:
        """In bytes. Raises FileNotFoundError."""

    def sha256(self, name: str) -> tuple[int, str]:
        """Size in bytes and hex digest of what lies there, read whole. Raises FileNotFoundError."""

    def holds(self, name: str, entry: tuple[int, str]) -> bool:
        """Whether what lies there, read whole, is of this size and hex SHA-256."""

    def names(self, folder: str) -> list[str]:
        """File names directly in a folder, in any order. A missing folder is FileNotFoundError, or none in a bucket."""

    def files(self) -> list[str]:
        """Every file, sorted; links count as files."""

    def open_array(self, name: str) -> Any:
        """The zarr array, to read."""

    def reading(self) -> AbstractContextManager[None]:
        """Within it zarr's reading of arrays raises as everything here does."""

    def require_free(self) -> None:
        """RequestError where a new store can't be made, because something is there."""

    def adopt(self, folder: Path) -> bool:
        """Make the store of a prepared folder's files: there as a whole, or not at all.

        Returns False where another process made another one there meanwhile.
        """

    def put(self, staged: Path, name: str) -> None:
        """A staged file's content, atomically, in the place of what is there; the staged file stays."""

    def put_new(self, staged: Path, name: str) -> None:
        """A staged file's content, atomically, unless something is there: FileExistsError. The first wins."""

    def settle(self, names: Iterable[str]) -> None:
        """Returns when these files are where a power cut leaves them."""

    def delete(self, name: str) -> None:
        """Raises FileNotFoundError, or nothing where that can't be known."""

    def staging(self) -> AbstractContextManager[Path]:
        """A new empty local folder for this process alone, removed at the end."""

    def clean_staging(self) -> int:
        """Remove the staging folders of processes of this machine that are gone; returns how many."""

    def room(self) -> int:
        """Bytes free for what is staged and kept on a disk."""

    def lock(self, shard: int) -> AbstractContextManager[bool]:
        """One process at a time puts this shard's files into place, if it says True; False where there are no locks."""

    def claims(self, worker: str, expiry_s: float) -> Claims:
        """A worker's claims on the shards of this store."""
