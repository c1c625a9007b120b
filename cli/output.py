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


def parse_auto_int(flag: str, value: str) -> int | None:
    """`auto` as None, else a positive whole number; RequestError otherwise."""
    if value == "auto":
        return None
    if not value.isdecimal() or int(value) < 1:
        raise RequestError(f"{flag} {value}: give auto or a whole number of at least 1")
    return int(value)
