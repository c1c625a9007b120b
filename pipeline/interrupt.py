"""A warning before the end: SIGTERM, SIGUSR2 and Ctrl-C let the work reach a safe point instead of breaking it."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

WARNINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
"""Not SIGUSR1: NCCL catches it. A scheduler sends SIGTERM or SIGUSR2 ahead of its time limit."""


class Interrupted(BaseException):
    """A warning came where the work has no safe point of its own. Not KeyboardInterrupt, which typer takes itself."""


class Interruption:
    """Whether the work was asked to stop; true for good once a warning came."""

    def __init__(self) -> None:
        self.requested = False

    def __bool__(self) -> bool:
        return self.requested


@contextmanager
def raise_on_warning() -> Iterator[None]:
    """Within the context a warning raises Interrupted."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Interrupted

    with _handled_by(stop):
        yield


@contextmanager
def stop_on_warning(*, patient: bool = False) -> Iterator[Interruption]:
    """Within the context a first warning only sets the flag; a second one does what it did before.

    patient: any number of warnings only set the flag. One of several ranks is warned more than once: by whoever warns
    all processes of a job, and by what started the ranks.
    """
    interruption = Interruption()

    def request(number: int, frame: FrameType | None) -> None:
        interruption.requested = True
        if not patient:
            restore()

    with _handled_by(request) as restore:
        yield interruption


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[Callable[[], None]]:
    """Yields what puts the former handlers back. A warning that was ignored, as nohup does with Ctrl-C, stays so."""
    previous = {number: signal.getsignal(number) for number in WARNINGS}
    heeded = [number for number in WARNINGS if previous[number] is not signal.SIG_IGN]

    def restore() -> None:
        for number in heeded:
            signal.signal(number, previous[number])

    for number in heeded:
        signal.signal(number, handler)
    try:
        yield restore
    finally:
        restore()
