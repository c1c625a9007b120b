"""Claims: who works on what at the moment, so that workers don't do the same work twice.

A claim saves work and nothing else: whoever computes a shard without one, or after losing one, publishes it as safely
as before (`publish_shard`).
"""

import threading
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Any

EXPIRY_S = 300.0
BEATS = 6
"""Beats of the heart per expiry: storage may hang for most of it before a living worker's claim is taken over."""

SUFFIX = ".claim"


class Claims(ABC):
    """The claims of one worker; a context within which a thread keeps them alive, and at whose end they are let go."""

    def __init__(self, worker: str, expiry_s: float = EXPIRY_S) -> None:
        """worker: a name for messages. expiry_s: after which others take a claim over that was not touched."""
        self.worker, self.expiry_s = worker, expiry_s
        self.taken_over: list[tuple[str, str]] = []
        """Name and former holder of every claim that was found dead."""
        self._held: dict[str, Any] = {}
        self._mutex = threading.Lock()
        self._end = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="claims", daemon=True)

    def __enter__(self) -> "Claims":
        self._heart.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._heart.join()
        for name in list(self._held):
            self.release(name)

    @abstractmethod
    def take(self, name: str) -> bool:
        """Whether this worker has the claim now. OSError passes through."""

    @abstractmethod
    def release(self, name: str) -> None:
        """Let a claim go that `take` gave; does nothing to one that another worker took over meanwhile."""

    @abstractmethod
    def names(self) -> set[str]:
        """Everything that is claimed by anybody, dead or alive; one listing."""

    @abstractmethod
    def _touch(self, name: str, held: Any) -> None:
        """Keep a claim alive. A failure is left to the next beat; a lost claim loses no work."""

    def _beat(self) -> None:
        while not self._end.wait(self.expiry_s / BEATS):
            with self._mutex:
                for name, held in self._held.items():
                    self._touch(name, held)
