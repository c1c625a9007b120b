"""Processes that a test starts, and all that those start: found by a mark in their environment, whoever their parent
is by now."""

import contextlib
import os
import signal
from pathlib import Path

MARK = "DISTILL_TEST_MARK"


def marked(mark: str) -> dict[int, str]:
    """Process id to command line of every living process of this mark, but for this one."""
    entry, found = f"{MARK}={mark}".encode(), {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            with contextlib.suppress(OSError):  # it ended meanwhile; a zombie has an empty environment
                if entry in (folder / "environ").read_bytes().split(b"\0"):
                    found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


def kill_marked(mark: str) -> None:
    """Kill those that a failing test leaves."""
    for process in marked(mark):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
