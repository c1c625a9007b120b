"""Training on several devices of one machine without torchrun: one process per device, started, warned and ended here.

Each process runs the same command line again and finds its place in torchrun's environment variables.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from data.errors import RequestError, WorkLeftError
from pipeline.interrupt import Interrupted, Interruption, stop_on_warning
from stages.student.rank_errors import LostRankError, is_of_all_ranks
from stages.student.ranks import Ranks

LAUNCHED = "DISTILL_LAUNCHED"
"""Set for a process started here: its standard input ends when this one does."""

GRACE_S = 30.0
"""How long the ranks may take to end by themselves once one has failed; a healthy one notices within a step."""

POLL_S = 0.05

REFUSED = 2
"""The exit status of a request that can't be served."""

COMMAND = "from cli.main import main; main()"


def launched(devices: int) -> bool:
    """Whether this process is a rank already. RequestError where torchrun started another number than --devices."""
    size = int(os.environ.get("WORLD_SIZE", 1))
    if size > 1 and size != devices:
        raise RequestError(f"--devices {devices}, but {size} ranks were started by torchrun: leave out --devices")
    return size > 1


def run_ranks(count: int, arguments: Sequence[str]) -> None:
    """Run `distill ARGUMENTS` in so many processes and wait for them.

    A warning is passed on to all of them; a second one, or whatever else ends this process, ends them. Leaves with the
    status of the rank that failed, which has said why, and raises WorkLeftError where it could not.
    """
    import torch.distributed as dist

    # served from here, on a port that the kernel gives: none has to be guessed
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # type: ignore[attr-defined]  # it is there
    ranks: list[subprocess.Popen[bytes]] = []
    with stop_on_warning() as interruption:
        try:
            ranks += [_start(rank, count, store.port, arguments) for rank in range(count)]
            failed = _first_to_fail(ranks, interruption)
        finally:
            for process in ranks:
                process.kill()
                process.wait()
    if failed is None:
        return
    status = ranks[failed].returncode
    if status > 0:
        raise SystemExit(status)
    if interruption:
        raise WorkLeftError("interrupted; the same command goes on where it stopped, with --resume if a run was begun")
    raise WorkLeftError(
        f"rank {failed} of {count} was ended by {signal.Signals(-status).name}. The same command with --resume goes on "
        "after the last state that was saved"
    )


def _start(rank: int, count: int, port: int, arguments: Sequence[str]) -> "subprocess.Popen[bytes]":
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": port}
    environment = {
        **os.environ,
        **{name: str(value) for name, value in place.items()},
        "MASTER_ADDR": "127.0.0.1",
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # as under torchrun: nobody but the starter serves the store
        LAUNCHED: "1",
    }
    # -P: a folder called data or cli where the command is given must not be taken for a package
    return subprocess.Popen([sys.executable, "-P", "-c", COMMAND, *arguments], env=environment, stdin=subprocess.PIPE)


def _first_to_fail(ranks: "Sequence[subprocess.Popen[bytes]]", interruption: Interruption) -> int | None:
    """Wait for all; the rank that failed first, if any. A kill comes before the errors that it causes in others, and so
    does a request that all ranks refuse: one that leaves breaks the connections of the rest."""
    failed: int | None = None
    warned, deadline = False, float("inf")
    while any(process.poll() is None for process in ranks):
        if interruption and not warned:
            warned = True
            for process in ranks:
                process.send_signal(signal.SIGTERM)
        if failed is None:
            failed = _failed(ranks)
            deadline = time.monotonic() + GRACE_S if failed is not None else deadline
        if time.monotonic() > deadline:
            for process in ranks:
                process.kill()
        time.sleep(POLL_S)
    for rank, process in enumerate(ranks):
        if process.returncode == REFUSED:
            return rank
    return _failed(ranks) if failed is None else failed


def _failed(ranks: "Sequence[subprocess.Popen[bytes]]") -> int | None:
    failed = [(process.returncode, rank) for rank, process in enumerate(ranks) if process.returncode]
    return min(failed)[1] if failed else None


def heed_launcher() -> None:
    """In a rank started here: take the end of the starter, even by kill -9, for a warning."""

    def watch() -> None:
        os.read(0, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    if LAUNCHED in os.environ:
        threading.Thread(target=watch, daemon=True).start()


@contextmanager
def said_by_the_first(ranks: Ranks) -> Iterator[None]:
    """An error that all ranks have, a warning of all, or the loss of a rank, which has said itself what it has, is the
    first one's to say; the others leave with its status and without a word. What one rank alone has, it says."""
    try:
        yield
    except (Exception, Interrupted) as error:
        if ranks.size == 1:
            raise
        if isinstance(error, Interrupted | LostRankError) or is_of_all_ranks(error):
            if ranks.first:
                raise
            raise SystemExit(REFUSED if isinstance(error, RequestError) else 1) from error
        if isinstance(error, RequestError | WorkLeftError):
            kind = RequestError if isinstance(error, RequestError) else WorkLeftError
            raise kind(f"rank {ranks.rank}: {error}") from error
        error.add_note(f"on rank {ranks.rank} of {ranks.size}")
        raise
