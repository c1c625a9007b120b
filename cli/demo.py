"""`distill demo`: the main job on the photographs in the repository."""

from pathlib import Path
from typing import Annotated

import typer


def demo(
    out: Annotated[Path, typer.Option(help="A new folder for all that the demo makes.")] = Path("demo-output"),
    as_json: Annotated[bool, typer.Option("--json", help="The result as JSON on standard output.")] = False,
) -> None:
    """Label, train a student with and without distillation, measure both: minutes on two CPU cores."""
    from cli.output import say
    from pipeline.demo import run_demo

    say(run_demo(out), as_json)
