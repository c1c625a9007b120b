"""The command line as a user meets it: exit status, standard output, standard error."""

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from cli.main import main

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
DISTILL = (sys.executable, "-c", "from cli.main import main; main()")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended. error: its last line on standard error, where the message is."""

    status: int
    stdout: str
    stderr: str

    @property
    def error(self) -> str:
        lines = self.stderr.splitlines()
        return lines[-1] if lines else ""


def distill(*arguments: Any) -> Outcome:
    """`distill …` in this process: everything but the start of an interpreter."""
    out, err, status = io.StringIO(), io.StringIO(), 0
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.object(sys, "argv", ["distill", *map(str, arguments)]),
    ):
        try:
            main()
        except SystemExit as end:
            status = int(end.code or 0)
    return Outcome(status, out.getvalue(), err.getvalue())


def succeed(*arguments: Any) -> Outcome:
    """`distill` of what must work."""
    outcome = distill(*arguments)
    assert outcome.status == 0, outcome.stderr
    return outcome


_started: "list[subprocess.Popen[str]]" = []


def start_process(*arguments: Any, by: Sequence[str] = DISTILL, **options: Any) -> "subprocess.Popen[str]":
    """`distill …` as a process of its own, with one thread of arithmetic; killed at the test's end if it still lives.

    by: the words of another `distill` (`labelling.slowly`).
    """
    process = subprocess.Popen(
        [*by, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **ENVIRONMENT},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )
    _started.append(process)
    return process


def end_processes() -> None:
    """Of `start_process`: a test that failed leaves nothing behind that disturbs the next one."""
    while _started:
        with _started.pop() as process:  # closes its pipes
            if process.poll() is None:
                process.kill()


def run_python(source: str, *arguments: Any, timeout: float = 240) -> "subprocess.CompletedProcess[str]":
    """A script of a test in an interpreter of its own, with the project importable."""
    return subprocess.run(
        [sys.executable, "-c", source, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
