"""Many workers on one small store: what the tests of claims, clusters and chaos start and look at."""

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data.store.files import files_below
from data.store.folder_claims import FolderClaims
from data.store.ledger import finished_shards
from pipeline.worker_log import summaries
from tests.command_line import ROOT, start_process, succeed
from tests.pictures import copy_pictures, damage, write_teacher

SETTINGS = ("--device", "cpu", "--precision", "float32", "--batch-size", 2, "--shard-size", 3, "--threads", 1)
COUNT = 26
SHARDS = 9

SLEEPING = """
import sys
sys.path.insert(0, {root!r})
from tests.sleeping_teacher import install
install(seconds={seconds}, arrivals={arrivals!r}, together={together}, stuck_after={stuck_after})
"""

COMMAND = """
from cli.main import main
if __name__ == "__main__":  # and not in the processes that it starts, which import it
    main()
"""


def make_folder(folder: Path) -> Path:
    """pictures/ (one of them damaged), teacher.safetensors, and the undisturbed store/ of one process."""
    damage(copy_pictures(folder / "pictures", COUNT)[4])
    write_teacher(folder / "teacher.safetensors", side=64)
    succeed("label", "--store", folder / "store", *arguments(folder))
    return folder


def arguments(folder: Path) -> tuple[Any, ...]:
    """Of `distill label` but for the store."""
    return (folder / "pictures", "--teacher", folder / "teacher.safetensors", *SETTINGS)


def sleeping(folder: Path, seconds: float, *, together: int = 1, stuck_after: int | None = None) -> Path:
    """A file of Python that puts a teacher to sleep for so long before each batch; new for every call.

    together: nobody ends its first batch before so many processes have begun theirs. Of two workers with SETTINGS both
    get some of the shards then: a worker claims four of them at most before its first batch ends.
    stuck_after: the batches after which a process hangs.
    """
    arrivals = Path(tempfile.mkdtemp(prefix="arrivals-", dir=folder))
    made = arrivals.with_suffix(".py")
    made.write_text(
        SLEEPING.format(
            root=str(ROOT), seconds=seconds, arrivals=str(arrivals), together=together, stuck_after=stuck_after
        )
    )
    return made


def slowly(folder: Path, seconds: float, **how: Any) -> list[str]:
    """`distill` with a teacher that sleeps (`sleeping`)."""
    script = sleeping(folder, seconds, **how)
    script.write_text(script.read_text() + COMMAND)
    return [sys.executable, str(script)]


def start_slowly(folder: Path, seconds: float, store: Path | str, *more: Any, **how: Any) -> "subprocess.Popen[str]":
    """`distill label` with a teacher that sleeps, in a process of its own."""
    return start_process("label", "--store", store, *arguments(folder), *more, by=slowly(folder, seconds, **how))


def until(condition: Callable[[], Any], what: str, *processes: "subprocess.Popen[str]") -> None:
    """Wait until it holds, while these processes live."""
    end = time.monotonic() + 240
    while not condition():
        for process in processes:
            assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end, f"waited in vain until {what}"
        time.sleep(0.02)


def ledger(store: Path) -> list[int]:
    """Shards with a record, none where there is no store yet."""
    return finished_shards(store) if store.exists() else []


def claimed(store: Path) -> set[str]:
    """What is claimed now."""
    return FolderClaims(store, "the test").names()


def contents(store: Path) -> dict[str, bytes]:
    """Every file of a store."""
    return {file: (store / file).read_bytes() for file in files_below(store)}


def array_at_work(store: Path) -> dict[str, int]:
    """Task of the array to process id, of the workers that published a shard and have not left."""
    names = [log.worker for log in summaries(store) if log.shards and not log.end]
    found = (re.search(r"-(\d+)-job-\d+_(\d+)$", name) for name in names)
    return {match[2]: int(match[1]) for match in found if match and Path(f"/proc/{match[1]}").exists()}
