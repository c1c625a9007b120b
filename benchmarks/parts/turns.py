"""Ratios that hold on a busy machine: what is compared runs in turn, and each ratio is taken within one round."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Spread:
    """One figure over the rounds."""

    median: float
    lowest: float
    highest: float


@dataclass(frozen=True, slots=True)
class Goal:
    """A number to reach. A goal is met by the median."""

    kind: Literal["at least", "at most"]
    value: float

    def met_by(self, value: float) -> bool:
        return value >= self.value if self.kind == "at least" else value <= self.value


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a result. digits: how many decimals are worth printing. details: the figures behind a ratio."""

    what: str
    unit: str
    value: Spread
    goal: Goal | None = None
    digits: int = 2
    details: str = ""

    @property
    def met(self) -> bool | None:
        return None if self.goal is None else self.goal.met_by(self.value.median)

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"met": self.met}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Finding":
        goal = value["goal"]
        return cls(
            value["what"],
            value["unit"],
            Spread(**value["value"]),
            None if goal is None else Goal(**goal),
            value["digits"],
            value["details"],
        )


def in_turn(runs: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """One value of every run per round; every other round goes backwards, so that a drift favours nobody."""
    values: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds):
        for name in list(runs) if number % 2 == 0 else list(reversed(runs)):
            values[name].append(runs[name]())
    return values


def spread(values: Sequence[float]) -> Spread:
    """Median and range."""
    return Spread(statistics.median(values), min(values), max(values))


def ratio(values: Sequence[float], base: Sequence[float]) -> Spread:
    """Of two runs' values, round by round."""
    return spread([value / other for value, other in zip(values, base, strict=True)])


def table(findings: Sequence[Finding]) -> str:
    """Markdown."""
    lines = ["| what | median | range | goal | | behind it |", "|---|---|---|---|---|---|"]
    for finding in findings:
        value, digits = finding.value, finding.digits
        goal = "" if finding.goal is None else f"{finding.goal.kind} {finding.goal.value:g}"
        verdict = {None: "", True: "reached", False: "**MISSED**"}[finding.met]
        lines.append(
            f"| {finding.what} | {value.median:.{digits}f} {finding.unit} | {value.lowest:.{digits}f}–"
            f"{value.highest:.{digits}f} | {goal} | {verdict} | {finding.details} |"
        )
    return "\n".join(lines)
