"""`distill show`: look at a store's soft labels, or at a run's curves."""

from pathlib import Path
from typing import Annotated

import typer

from cli.choices import STORE


def show(
    what: Annotated[str, typer.Argument(metavar=f"{STORE}|RUN", help="A store or a run.")],
    out: Annotated[Path, typer.Option(help="The picture to write (.png or .jpg).")],
    images: Annotated[list[str] | None, typer.Option(help="Where a store's pictures are now.")] = None,
    key: Annotated[
        list[str] | None, typer.Option(help="Show these pictures of a store; the first ones if not given.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="How many pictures, if no key is given.")] = 4,
    teacher: Annotated[Path | None, typer.Option(help="Run it again, for the boxes before FM-NMS.")] = None,
    cfg: Annotated[Path | None, typer.Option(help="Darknet .cfg of the teacher.")] = None,
    names: Annotated[Path | None, typer.Option(help="Class names of a Darknet teacher.")] = None,
    min_objectness: Annotated[float, typer.Option(min=0, max=1, help="Draw boxes from this objectness on.")] = 0.1,
) -> None:
    """Draw a store's teacher boxes, with --teacher before and after FM-NMS; or a run's loss terms and AP."""
    from data.store.address import store_address
    from pipeline.show_command import run_show

    typer.echo(
        run_show(
            store_address(what),
            out,
            images=tuple(images or ()),
            keys=tuple(key or ()),
            count=count,
            teacher=teacher,
            cfg=cfg,
            names=names,
            min_objectness=min_objectness,
        )
    )
