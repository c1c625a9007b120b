"""How long `distill --help` takes, and what it imports."""

import subprocess
import sys
import time
from pathlib import Path

from parts.turns import Finding, Goal, spread

GOAL = Goal("at most", 0.3)
RUNS = 10
HEAVY = ("torch", "zarr", "dask")

_IMPORTED = """
import sys
sys.argv = ["distill", "--help"]
from cli.main import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print("imported:", *(name for name in %r if name in sys.modules), file=sys.stderr)
"""


def measure_help() -> list[Finding]:
    """Wall time of the installed command; the heavy packages it has imported by the time it leaves."""
    command = Path(sys.executable).with_name("distill")
    times = []
    for _ in range(RUNS + 1):
        began = time.perf_counter()
        subprocess.run([command, "--help"], check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - began)
    probe = subprocess.run(
        [sys.executable, "-c", _IMPORTED % (HEAVY,)], check=True, capture_output=True, text=True
    ).stderr.strip()
    heavy = probe.removeprefix("imported:").split()
    return [
        Finding(f"`distill --help`, {RUNS} runs after a first", "s", spread(times[1:]), GOAL),
        Finding(
            f"of {', '.join(HEAVY)} imported by it",
            "",
            spread([len(heavy)]),
            Goal("at most", 0),
            digits=0,
            details=", ".join(heavy),
        ),
    ]
