"""`distill predict`: boxes on pictures."""

from pathlib import Path
from typing import Annotated

import typer


def predict(
    model: Annotated[Path, typer.Argument(help="A run, a model file, or Darknet .weights with --cfg.")],
    images: Annotated[list[str], typer.Argument(help="Folders or files of pictures.")],
    out: Annotated[Path, typer.Option(help="Folder for the pictures with boxes and detections.json.")],
    cfg: Annotated[Path | None, typer.Option(help="Darknet .cfg.")] = None,
    names: Annotated[Path | None, typer.Option(help="Class names of a Darknet model.")] = None,
    score: Annotated[float, typer.Option(min=0, max=1, help="Boxes below it are left out.")] = 0.3,
    input_size: Annotated[int | None, typer.Option(help="Side of the input; the model's own if not given.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "float32",
    as_json: Annotated[bool, typer.Option("--json", help="The result as JSON on standard output.")] = False,
) -> None:
    """Detect objects, and draw them."""
    from cli.output import say
    from pipeline.predict_command import run_predict

    result = run_predict(
        model, images, out, cfg=cfg, names=names, score=score, input_size=input_size, device=device, precision=precision
    )
    say(result, as_json)
