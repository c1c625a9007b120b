"""`distill verify`: is a store whole, unchanged, and from this teacher?"""

from pathlib import Path
from typing import Annotated

import typer

from cli.choices import STORE


def verify(
    store: Annotated[str, typer.Argument(metavar=STORE, help="The store.")],
    quick: Annotated[
        bool, typer.Option("--quick", help="Compare checksums only; otherwise every array is decoded too.")
    ] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Drop the ledger records of damaged shards: label makes them again.")
    ] = False,
    teacher: Annotated[Path | None, typer.Option(help="Weights, run or model file it should be from.")] = None,
    cfg: Annotated[Path | None, typer.Option(help="Darknet .cfg of the teacher.")] = None,
    names: Annotated[Path | None, typer.Option(help="Class names of a Darknet teacher, one per line.")] = None,
    sample: Annotated[int, typer.Option(min=0, help="Pictures that the teacher labels anew, to compare.")] = 32,
    images: Annotated[list[str] | None, typer.Option(help="Where the store's pictures are now.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="Shards read at once; a core each if not given.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The result as JSON on standard output.")] = False,
) -> None:
    """Check every file of a store; names the damaged shard or file and leaves with status 1."""
    from cli.output import say
    from data.errors import WorkLeftError
    from data.store.address import store_address
    from pipeline.verify_command import VerifyRequest, run_verify

    request = VerifyRequest(
        store=store_address(store),
        quick=quick,
        repair=repair,
        teacher=teacher,
        cfg=cfg,
        names=names,
        sample=sample,
        images=tuple(images or ()),
        device=device,
        threads=threads,
    )
    result = run_verify(request)
    say(result, as_json)
    if not result["whole"]:
        raise WorkLeftError(
            f"{store} is not what it should be: what was found is listed above ({len(result['damage'])}). "
            f"{result['remedy']}"
        )
