"""`distill verify`: is a store whole, unchanged, and from this teacher?"""

from pathlib import Path
from typing import Annotated

import typer


def verify(
    store: Annotated[Path, typer.Argument(help="The store.")],
    teacher: Annotated[Path | None, typer.Option(help="Weights, run or model file it should be from.")] = None,
    cfg: Annotated[Path | None, typer.Option(help="Darknet .cfg of the teacher.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The result as JSON on standard output.")] = False,
) -> None:
    """Check every file of a store; names the damaged shard or file and leaves with status 1."""
    from cli.output import say
    from data.errors import WorkLeftError
    from pipeline.verify_command import run_verify

    result = run_verify(store, teacher, cfg)
    say(result, as_json)
    if not result["whole"]:
        raise WorkLeftError(
            f"{store} is not as it was written: what was found is listed above ({len(result['damage'])}). The label "
            "command that began the store makes what is unfinished, and damaged shards too once their ledger record "
            "and files are deleted"
        )
