"""A teacher that takes its time for a batch, as one on a busy GPU does, in the processes of `distill label`.

What tests of several workers assume of their timing is said here, not left to how fast a process starts.
"""

import os
import time
from pathlib import Path
from typing import Any

from stages.label.teacher import Teacher


def install(*, seconds: float, arrivals: str, together: int, stuck_after: int | None) -> None:
    """Of this process: see `labelling.slowly`. Dask loads twice what is to be preloaded; the second time is nothing."""
    if hasattr(Teacher, "awake"):
        return
    awake, calls = Teacher.label, 0

    def label(self: Teacher, inputs: Any) -> Any:
        nonlocal calls
        (Path(arrivals) / str(os.getpid())).touch()
        while len(list(Path(arrivals).iterdir())) < together:
            time.sleep(0.02)
        time.sleep(seconds if stuck_after is None or calls < stuck_after else 3600)
        calls += 1
        return awake(self, inputs)

    Teacher.awake = awake  # type: ignore[attr-defined]
    Teacher.label = label  # type: ignore[method-assign]
