"""Results on standard output: lines for people, or one JSON value for scripts."""

import json
from typing import Any

import typer

from data.errors import RequestError


def say(result: dict[str, Any], as_json: bool) -> None:
    """Print a result. Its entry "text" is what people read; JSON holds the other entries."""
    text = result.get("text", "")
    if as_json:
        typer.echo(json.dumps({name: value for name, value in result.items() if name != "text"}, indent=2))
    elif text:
        typer.echo(text)


UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_duration(flag: str, value: str) -> float:
    """Seconds of `90`, `30s`, `90m`, `1.5h`, `2d`, or of Slurm's `MM:SS`, `H:MM:SS`, `D-H[:MM[:SS]]`.

    A bare number is of seconds. RequestError for anything else.
    """
    days, dash, clock = value.rpartition("-")
    parts = (clock or value).split(":")
    try:
        if dash or len(parts) > 1:
            fields = [*parts, "0", "0"][:3] if dash else ["0", *parts][-3:]
            if len(parts) > 3 or not all(part.isdecimal() for part in (*parts, days or "0")):
                raise ValueError
            seconds = 86400.0 * int(days or 0) + sum(int(f) * u for f, u in zip(fields, (3600, 60, 1), strict=True))
        else:
            unit = UNITS_S.get(value[-1:])
            seconds = float(value[:-1]) * unit if unit else float(value)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise RequestError(f"{flag} {value}: give a time such as 90m, 3h or 1-12:00:00")
    return seconds


def parse_auto_int(flag: str, value: str) -> int | None:
    """`auto` as None, else a positive whole number; RequestError otherwise."""
    if value == "auto":
        return None
    if not value.isdecimal() or int(value) < 1:
        raise RequestError(f"{flag} {value}: give auto or a whole number of at least 1")
    return int(value)
