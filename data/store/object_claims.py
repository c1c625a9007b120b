"""Claims as objects: `PREFIX.work/claims/NAME.claim`, put if absent and put again while their worker lives."""

import contextlib
import json
import time
import uuid
from typing import Any

from data.store.claims import SUFFIX, Claims
from data.store.objects import Objects

FOLDER = "claims"
RESOLUTION_S = 1.0
"""The server's dates have whole seconds."""


class ObjectClaims(Claims):
    """A claim is dead when it was not put again for as long as it says itself, by the server's clock.

    Who finds it dead deletes it and puts its own if absent. Of two who do so at once the slower may delete the quicker
    one's claim: both then work on the shard, which costs time and nothing else.
    """

    def __init__(self, work: Objects, worker: str, expiry_s: float) -> None:
        """work: of the store, `PREFIX.work`. The rest as `Claims`."""
        super().__init__(worker, expiry_s)
        self.work = work
        self._ahead_s: float | None = None

    def take(self, name: str) -> bool:
        """Whether this worker has the claim now. OSError passes through."""
        content = self._content(uuid.uuid4().hex)
        for _ in range(3):
            try:
                self.work.create(_object(name), content)
            except FileExistsError:
                there = self._read(name)
                # our own, where the answer to our first request was lost and obstore asked again
                if there != content:
                    if self._out_of_the_way(name, there):
                        continue
                    return False
            with self._mutex:
                self._held[name] = content
            return True
        return False

    def release(self, name: str) -> None:
        """Let a claim go that `take` gave; does nothing to one that another worker took over meanwhile."""
        with self._mutex, contextlib.suppress(OSError):  # it dies by its age then
            content = self._held.pop(name)
            if self._read(name) == content:
                self.work.delete(_object(name))

    def names(self) -> set[str]:
        """Everything that is claimed by anybody, dead or alive; one listing."""
        return {name.removesuffix(SUFFIX) for name in self.work.names(FOLDER) if name.endswith(SUFFIX)}

    def _touch(self, name: str, held: bytes) -> None:
        with contextlib.suppress(OSError):
            if self._read(name) == held:
                self.work.write(_object(name), held)

    def _content(self, token: str) -> bytes:
        return json.dumps({"token": token, "worker": self.worker, "expiry_s": self.expiry_s}).encode()

    def _read(self, name: str) -> bytes | None:
        try:
            return self.work.read(_object(name))
        except FileNotFoundError:
            return None

    def _out_of_the_way(self, name: str, content: bytes | None) -> bool:
        """Whether the claim that was found there is gone, or was dead and is deleted."""
        claim = _parsed(content)
        try:
            age_s = self._now() - self.work.head(_object(name))["last_modified"].timestamp()
            if age_s <= float(claim.get("expiry_s", self.expiry_s)) + RESOLUTION_S:
                return False
            self.work.delete(_object(name))
        except FileNotFoundError:
            return True
        self.taken_over.append((name, str(claim.get("worker", "an unknown worker"))))
        return True

    def _now(self) -> float:
        """The time by the server's clock, which is asked once, by the date of a new object."""
        if self._ahead_s is None:
            clock = f"{FOLDER}/{uuid.uuid4().hex}.clock"
            self.work.write(clock, b"")
            self._ahead_s = self.work.head(clock)["last_modified"].timestamp() - time.monotonic()
            self.work.delete(clock)
        return time.monotonic() + self._ahead_s


def _object(name: str) -> str:
    return f"{FOLDER}/{name}{SUFFIX}"


def _parsed(content: bytes | None) -> dict[str, Any]:
    try:
        value = json.loads(content or b"")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
