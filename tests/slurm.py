"""A real Slurm of two nodes on this machine, and what the tests ask of it."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
UP, DOWN = ROOT.parent / "shared/slurm/up", ROOT.parent / "shared/slurm/down"

REQUIRED = "REQUIRE_SLURM"
"""Set in the environment (as CI does) where a missing Slurm is a failure, not a reason to skip."""


@dataclass(frozen=True, slots=True)
class Slurm:
    """folder: of its configuration, state and logs."""

    folder: Path

    def run(self, *command: Any) -> str:
        """A command of Slurm's; its standard output. Fails with what it said."""
        done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout.strip()

    def jobs(self) -> list[tuple[str, str, str]]:
        """Id (with the array's task), state and reason of every job that has not ended."""
        lines = self.run("squeue", "--noheader", "--array", "--format=%i|%T|%r").splitlines()
        return [(job, state, reason) for job, state, reason in (line.split("|") for line in lines)]

    def state(self, job: str) -> str:
        """Of a job that may have ended."""
        return next(
            word.partition("=")[2]
            for word in self.run("scontrol", "show", "job", job).split()
            if word.startswith("JobState=")
        )

    def hurry(self) -> None:
        """A requeued job waits for two minutes; here two seconds. Not less: the node that it was on refuses for a
        second what was revoked there ("Job credential revoked"), and the job fails."""
        lines = self.run("squeue", "--noheader", "--array", "--states=PENDING", "--format=%i|%r|%S").splitlines()
        soon = (datetime.now() + timedelta(seconds=3)).isoformat()
        for job, reason, start in (line.split("|") for line in lines):
            if reason == "BeginTime" and start > soon:
                # it may have begun or ended meanwhile
                subprocess.run(
                    ["scontrol", "update", f"JobId={job}", "StartTime=now+2"], capture_output=True, check=False
                )

    def wait(self, condition: Callable[[], Any], what: str, seconds: float = 240, resume: str = "") -> None:
        """Until it holds, hurrying what was requeued, and the node that is to come back."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"waited in vain until {what}: {self.jobs()}"
            self.hurry()
            if resume:  # it may be back by itself
                update = ["scontrol", "update", f"nodename={resume}", "state=resume"]
                subprocess.run(update, capture_output=True, check=False)
            time.sleep(0.2)

    def lose_node(self, name: str) -> None:
        """As when it dies: its jobs are killed and put back into the queue. It comes back a moment later."""
        self.run("scontrol", "update", f"nodename={name}", "state=down", "reason=test")
        self.wait(lambda: self.node(name) != "down", f"{name} is back", resume=name)

    @contextlib.contextmanager
    def dead_node(self, name: str) -> Iterator[None]:
        """As when its power fails: within the context its slurmd is dead by kill -9, and so is everything that ran on
        it. Slurm notices when it has not heard of it for SlurmdTimeout (15 s). Afterwards it is there again."""
        steps, others = _on_node(name)
        for process in (int((self.folder / f"{name}.pid").read_text()), *steps, *others):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        try:
            yield
        finally:
            self._start_daemon("slurmd", "-N", name)
            self.wait(lambda: self.node(name) in ("idle", "mixed", "allocated"), f"{name} is back", resume=name)

    @contextlib.contextmanager
    def dead_controller(self) -> Iterator[None]:
        """Within the context slurmctld is dead by kill -9, and no command of Slurm's is answered."""
        process = int((self.folder / "slurmctld.pid").read_text())
        os.kill(process, signal.SIGKILL)
        try:
            yield
            assert not Path(f"/proc/{process}/exe").exists(), "it lived"
        finally:
            self._start_daemon("slurmctld")
            end = time.monotonic() + 60
            while subprocess.run(["scontrol", "ping"], capture_output=True, check=False).returncode:
                assert time.monotonic() < end, "slurmctld does not answer"
                time.sleep(0.2)

    def node(self, name: str) -> str:
        """Its state."""
        return self.run("sinfo", "-h", "-n", name, "-o", "%T")

    def _start_daemon(self, *command: str) -> None:
        with (self.folder / "restarts.log").open("a") as log:  # a daemon keeps it: a pipe would never end
            subprocess.run(command, stdout=log, stderr=log, check=True, timeout=60)

    def clear(self) -> None:
        """Cancel everything, and wait until it is gone."""
        self.run("scancel", "--user", "root")
        self.wait(lambda: not self.jobs(), "all jobs are gone")


def _on_node(name: str) -> tuple[list[int], list[int]]:
    """Processes of Slurm's job steps on this node, and the steps' own."""
    entry, steps, others = f"SLURMD_NODENAME={name}".encode(), set[int](), []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):  # it ended meanwhile
                if entry in (folder / "environ").read_bytes().split(b"\0"):
                    others.append(int(folder.name))
                    steps |= _step_above(folder)
    return sorted(steps), others


def _step_above(folder: Path) -> set[int]:
    """The slurmstepd that a process of a job descends from."""
    while int(folder.name) > 1:
        status = dict(line.split(":\t", 1) for line in (folder / "status").read_text().splitlines() if ":\t" in line)
        if status["Name"] == "slurmstepd":
            return {int(folder.name)}
        folder = folder.with_name(status["PPid"])
    return set()


def start(folder: Path) -> Slurm:
    """Start it. Raises RuntimeError where this machine has none, or it does not come up."""
    if not UP.exists():
        raise RuntimeError(f"there is no {UP} to start a Slurm with")
    if os.geteuid():
        raise RuntimeError("a Slurm for tests is started as root")
    # Its daemons keep what they are given as standard output: a pipe would never end.
    with (folder / "up.log").open("w") as log:
        done = subprocess.run(
            ["bash", str(UP), str(folder / "slurm")], stdout=log, stderr=log, check=False, timeout=600
        )
    if done.returncode:
        # What did start must not stay: it would hold the ports of the next one, which would then talk to it.
        subprocess.run(["bash", str(DOWN), str(folder / "slurm")], check=True, timeout=60)
        raise RuntimeError(f"{UP} failed: {(folder / 'up.log').read_text()[-500:]}")
    return Slurm(folder / "slurm")


def stop(slurm: Slurm) -> None:
    """Cancel its jobs, then stop its daemons."""
    slurm.clear()
    subprocess.run(["bash", str(DOWN), str(slurm.folder)], check=True, timeout=60)
