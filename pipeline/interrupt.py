"""A warning before the end: SIGTERM, SIGUSR2 and Ctrl-C let the work reach a safe point instead of breaking it."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

WARNINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
"""Not SIGUSR1: NCCL catches it. A scheduler sends SIGTERM or SIGUSR2 ahead of its time limit."""


class Interruption:
    """Whether the work was asked to stop; true for good once a warning came."""

    def __init__(self) -> None:
        self.requested = False

    def __bool__(self) -> bool:
        return self.requested


@contextmanager
def stop_on_warning() -> Iterator[Interruption]:
    """Within the context a first warning only sets the flag; a second one ends the process as it always would."""
    interruption = Interruption()
    previous = {number: signal.getsignal(number) for number in WARNINGS}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def request(number: int, frame: FrameType | None) -> None:
        interruption.requested = True
        restore()

    for number in WARNINGS:
        signal.signal(number, request)
    try:
        yield interruption
    finally:
        restore()
