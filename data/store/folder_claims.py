"""Claims as files: `STORE.work/claims/NAME.claim`."""

import contextlib
import fcntl
import json
import os
import platform
import tempfile
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any

from data.store.claims import EXPIRY_S, SUFFIX, Claims
from data.store.layout import work_path

_BOOT = Path("/proc/sys/kernel/random/boot_id")


class FolderClaims(Claims):
    """A claim is dead when its file was not touched for as long as it says itself, by the clock of the file system:
    hosts need not agree on the time. On the machine of its holder it is dead at once when the holder is, for the kernel
    lets go of a lock (`flock`) on it; no other machine asks for that lock, since some file systems keep locks per
    machine.
    """

    def __init__(self, store: Path, worker: str, *, expiry_s: float = EXPIRY_S) -> None:
        """As `Claims`, on the store in this folder."""
        super().__init__(worker, expiry_s)
        self.folder = work_path(store) / "claims"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        for folder in (self.folder, self.folder.parent):
            with contextlib.suppress(OSError):  # there are others, or other things in it
                folder.rmdir()

    def take(self, name: str) -> bool:
        """Whether this worker has the claim now. OSError passes through."""
        path = self._path(name)
        for _ in range(3):
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
            except FileNotFoundError:  # nobody was here before, or the folder was deleted
                self.folder.mkdir(parents=True, exist_ok=True)
                continue
            except FileExistsError:
                if self._bury_if_dead(name):
                    continue
                return False
            with contextlib.suppress(OSError):  # no locks on this file system: only time tells then
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Written after it is locked: a claim that names this machine is never seen without its lock.
            content = {"machine": _machine(), "worker": self.worker, "expiry_s": self.expiry_s}
            with contextlib.suppress(OSError):  # a full disk: an empty claim is a claim
                os.write(descriptor, json.dumps(content).encode())
            with self._mutex:
                self._held[name] = descriptor
            return True
        return False

    def release(self, name: str) -> None:
        """Let a claim go that `take` gave; does nothing to one that another worker took over meanwhile."""
        with self._mutex:
            descriptor = self._held.pop(name)
        path = self._path(name)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(path.stat(), os.fstat(descriptor)):
                path.unlink()
        os.close(descriptor)

    def names(self) -> set[str]:
        """Everything that is claimed by anybody, dead or alive; one listing."""
        try:
            with os.scandir(self.folder) as entries:
                return {entry.name.removesuffix(SUFFIX) for entry in entries if entry.name.endswith(SUFFIX)}
        except FileNotFoundError:
            return set()

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}{SUFFIX}"

    def _bury_if_dead(self, name: str) -> bool:
        """Whether the claim is out of the way."""
        path = self._path(name)
        try:
            descriptor = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            return True
        try:
            claim = _content(descriptor)
            if not self._dead(descriptor, claim):
                return False
            # Of several who found it dead one gets it by renaming. Who renamed a younger one by it puts that back.
            grave = self.folder / f"{uuid.uuid4().hex}.dead"
            try:
                path.rename(grave)
            except FileNotFoundError:
                return True
            if os.path.samestat(grave.stat(), os.fstat(descriptor)):
                self.taken_over.append((name, str(claim.get("worker", "an unknown worker"))))
            else:
                with contextlib.suppress(FileExistsError):
                    os.link(grave, path)
            grave.unlink()
            return True
        finally:
            os.close(descriptor)

    def _dead(self, descriptor: int, claim: dict[str, Any]) -> bool:
        if claim.get("machine") == _machine():
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return True
        age_s = self._now() - os.fstat(descriptor).st_mtime
        return age_s > float(claim.get("expiry_s", self.expiry_s))

    def _now(self) -> float:
        """The time by the clock that dates the claims."""
        with tempfile.TemporaryFile(dir=self.folder) as file:
            os.utime(file.fileno())
            return os.fstat(file.fileno()).st_mtime

    def _touch(self, name: str, held: int) -> None:
        with contextlib.suppress(OSError):
            os.utime(held)


def _content(descriptor: int) -> dict[str, Any]:
    try:
        value = json.loads(os.pread(descriptor, 4096, 0))
    except ValueError:  # its holder has not written it yet, or died before it could
        return {}
    return value if isinstance(value, dict) else {}


def _machine() -> str:
    """What has one kernel, and so one table of locks; containers of one machine count as one."""
    return _BOOT.read_text().strip() if _BOOT.exists() else platform.node()
