"""The `distill` command: one sub-command per file; torch, zarr and dask are imported in them."""

import sys

import typer

from cli import bench, demo, label, predict, show, submit, train, verify
from data.errors import RequestError, WorkLeftError
from pipeline.interrupt import Interrupted, raise_on_warning

app = typer.Typer(
    name="distill",
    help="200-FPS object detectors by distillation: label once with a teacher, train many students from the cache.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help: rich cuts long flags, and costs a third of the start
    pretty_exceptions_enable=False,
)
app.command("label")(label.label)
app.command("train")(train.train)
app.command("bench")(bench.bench)
app.command("verify")(verify.verify)
app.command("show")(show.show)
app.command("predict")(predict.predict)
app.command("demo")(demo.demo)
app.add_typer(submit.app)


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
