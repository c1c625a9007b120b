"""The `distill` command: one sub-command per file; torch, zarr and dask are imported in them."""

import sys
from typing import Annotated

import typer

from cli import bench, demo, label, predict, show, submit, train, verify
from data.errors import RequestError, WorkLeftError
from pipeline.interrupt import Interrupted, raise_on_warning

app = typer.Typer(
    name="distill",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help: rich cuts long flags, and costs a third of the start
    pretty_exceptions_enable=False,
)
# The short helps are as long as a line of `distill --help` takes without cutting it off.
app.command("label", short_help="Label pictures with a YOLOv2 teacher into a store, once.")(label.label)
app.command("train", short_help="Train a student from a store, or from annotations.")(train.train)
app.command("bench", short_help="Measure accuracy and batch-1 speed side by side.")(bench.bench)
app.command("verify", short_help="Check every file of a store; name what is damaged.")(verify.verify)
app.command("show", short_help="Draw a store's soft labels, or the curves of a run.")(show.show)
app.command("predict", short_help="Detect objects, and draw them.")(predict.predict)
app.command("demo", short_help="All of it on the pictures in the repository.")(demo.demo)
app.add_typer(submit.app, short_help="Label or train as Slurm jobs that requeue themselves.")


@app.callback()
def distill(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Show the version and exit.",
            is_eager=True,
            callback=lambda asked: say_version() if asked else None,
        ),
    ] = False,
) -> None:
    """200-FPS object detectors by distillation: label once with a teacher, train many students from the cache."""


def say_version() -> None:
    """Of the installed package."""
    from importlib.metadata import version

    print(f"distill {version('distill')}")
    raise typer.Exit


def main() -> None:
    """Run the command line; errors a user can cause become one message and an exit status (docs/store.md)."""
    try:
        with raise_on_warning():
            app()
    except RequestError as error:
        fail(str(error), 2)
    except WorkLeftError as error:
        fail(str(error), 1)
    except Interrupted:
        fail("interrupted; the same command goes on where it stopped (train: with --resume)", 1)
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        fail(f"{error.strerror or error}{place}; mend it and run the same command again", 1)


def fail(message: str, status: int) -> None:
    """Say what is wrong on standard error and leave."""
    print(f"distill: {message}", file=sys.stderr)
    raise SystemExit(status)
