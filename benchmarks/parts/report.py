"""Results of parts, kept as JSON and shown as tables; figures of two machines never share a file."""

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parts.turns import Finding, table


@dataclass(frozen=True, slots=True)
class PartResult:
    """What one part found. settings: in words. seconds: it took. others: the share of the cores' time that meanwhile
    went to other processes or, on a virtual machine, to other machines; None where the system does not say."""

    title: str
    settings: str
    findings: tuple[Finding, ...]
    seconds: float
    others: float | None

    def to_json(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "settings": self.settings,
            "findings": [finding.to_json() for finding in self.findings],
            "seconds": self.seconds,
            "others": self.others,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "PartResult":
        findings = tuple(Finding.from_json(finding) for finding in value["findings"])
        return cls(value["title"], value["settings"], findings, value["seconds"], value["others"])

    @property
    def text(self) -> str:
        """Markdown: a heading, the settings, the table, the conditions."""
        others = "unknown" if self.others is None else f"{self.others:.1%}"
        conditions = f"Took {self.seconds:.0f} s; meanwhile other processes had {others} of the cores' time."
        return "\n\n".join([f"## {self.title}", self.settings, table(self.findings), conditions])

    @property
    def missed(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.met is False]


def measured(title: str, settings: str, measure: Callable[[], Sequence[Finding]]) -> PartResult:
    """Measure one part, and what else the machine did meanwhile."""
    others, began = _others_s(), time.monotonic()
    findings = tuple(measure())
    seconds, now = time.monotonic() - began, _others_s()
    share = None if others is None or now is None else (now - others) / (seconds * (os.cpu_count() or 1))
    return PartResult(title, settings, findings, round(seconds, 1), share)


def _others_s() -> float | None:
    """Seconds of the cores' time that did not go to this process and those it waited for, since the system started."""
    try:
        first, *times = Path("/proc/stat").read_text().splitlines()[0].split()
    except OSError:
        return None
    assert first == "cpu", first
    user, nice, system, _, _, interrupts, soft, steal = (int(ticks) for ticks in times[:8])
    busy = (user + nice + system + interrupts + soft + steal) / os.sysconf("SC_CLK_TCK")
    own = os.times()
    return busy - (own.user + own.system + own.children_user + own.children_system)


def read_results(file: Path, machine: str) -> dict[str, PartResult]:
    """Part name to its last result on this machine; what another machine measured is not taken up."""
    if not file.exists():
        return {}
    stored = json.loads(file.read_text())
    if stored["machine"] != machine:
        return {}
    return {name: PartResult.from_json(value) for name, value in stored["parts"].items()}


def write_results(file: Path, machine: str, parts: dict[str, PartResult]) -> None:
    """All of it, atomically."""
    content = {"machine": machine, "parts": {name: part.to_json() for name, part in parts.items()}}
    staged = file.with_suffix(".new")
    staged.write_text(json.dumps(content, indent=1) + "\n")
    staged.replace(file)
