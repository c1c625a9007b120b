"""Results of parts, kept as JSON and shown as tables; figures of two machines never share a file."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parts.turns import Finding, table


@dataclass(frozen=True, slots=True)
class PartResult:
    """What one part found. settings: in words. load: of the machine when it began, so that a reader knows whether the
    part had it to itself. seconds: the part took."""

    title: str
    settings: str
    findings: tuple[Finding, ...]
    load: float
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "settings": self.settings,
            "findings": [finding.to_json() for finding in self.findings],
            "load": self.load,
            "seconds": self.seconds,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "PartResult":
        findings = tuple(Finding.from_json(finding) for finding in value["findings"])
        return cls(value["title"], value["settings"], findings, value["load"], value["seconds"])

    @property
    def text(self) -> str:
        """Markdown: a heading, the settings, the table, the conditions."""
        conditions = f"Took {self.seconds:.0f} s; load average of the machine before it: {self.load:.2f}."
        return "\n\n".join([f"## {self.title}", self.settings, table(self.findings), conditions])

    @property
    def missed(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.met is False]


def load_now() -> float:
    """The system's load average over the last minute."""
    return round(os.getloadavg()[0], 2)


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
