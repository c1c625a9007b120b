"""`STORE.work/`: folders of one process each, and locks that the kernel lets go of when a process dies.

A lock is an advisory `flock` on a file. It needs no process ids, which mean nothing across machines and containers, and
a killed process cannot leave one behind. On a file system without `flock` nobody gets a lock: staging folders of dead
processes then stay until somebody deletes them, and `publish_shard` is safe without its lock.
"""

import contextlib
import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from data.store.layout import work_path

GENERATION = "generation.lock"


@contextlib.contextmanager
def staging_folder(store: Path) -> Iterator[Path]:
    """A new empty folder for this process alone, `STORE.work/staging/<unique>/`; removed at the end, error or not."""
    staging = work_path(store) / "staging"
    staging.mkdir(parents=True, exist_ok=True)
    while True:
        folder = staging / uuid.uuid4().hex
        lock = folder.with_suffix(".lock")
        with _locked(lock, wait=True):
            if not lock.exists():  # another process took it for a dead one's, between our opening and locking it
                continue
            try:
                folder.mkdir()
                yield folder
            finally:
                _remove(folder, lock)
            return


def clean_staging(store: Path) -> int:
    """Remove the staging folders of processes that are gone; call it when labelling starts. Returns how many.

    A folder whose lock is held, here or on another machine, stays, and so do all of them where there are no locks.
    """
    removed = 0
    for lock in sorted((work_path(store) / "staging").glob("*.lock")):
        with _locked(lock, wait=False) as held:
            if held:
                _remove(lock.with_suffix(""), lock)
                removed += 1
    return removed


@contextlib.contextmanager
def shard_lock(store: Path, shard: int) -> Iterator[bool]:
    """One process at a time puts this shard's files into place, and none while the store changes its generation.

    Waits for the others. Yields whether it is held.
    """
    locks = _locks(store)
    with (
        _locked(locks / GENERATION, wait=True, shared=True),
        _locked(locks / f"{shard:08d}.lock", wait=True) as held,
    ):
        yield held


@contextlib.contextmanager
def generation_lock(store: Path) -> Iterator[None]:
    """Nobody puts a shard's files into place; waits for those who do."""
    with _locked(_locks(store) / GENERATION, wait=True):
        yield


def _locks(store: Path) -> Path:
    locks = work_path(store) / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    return locks


@contextlib.contextmanager
def _locked(path: Path, *, wait: bool, shared: bool = False) -> Iterator[bool]:
    """Whether the lock is held inside the block; never, where the file system has no locks."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
            held = True
        except OSError:
            held = False
        yield held
    finally:
        os.close(descriptor)


def _remove(folder: Path, lock: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    lock.unlink(missing_ok=True)
