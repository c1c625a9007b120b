"""`distill bench`: how fast and how good, side by side."""

from pathlib import Path
from typing import Annotated

import typer


def bench(
    models: Annotated[
        list[Path], typer.Argument(help="Runs, model files, or Darknet .weights with a .cfg beside them.")
    ],
    images: Annotated[
        list[str] | None, typer.Option(help="Pictures to measure on; speed alone, on noise, without.")
    ] = None,
    annotations: Annotated[
        Path | None, typer.Option(help="Their annotations; without them speed alone is measured.")
    ] = None,
    test_list: Annotated[
        list[Path] | None, typer.Option("--list", help="Only these pictures (ImageSets list).")
    ] = None,
    against: Annotated[
        str, typer.Option(help="Architectures to time beside, with random weights: tiny-yolo,yolov2,f-yolo.")
    ] = "",
    input_size: Annotated[int | None, typer.Option(help="Side of the input; each model's own if not given.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    precision: Annotated[
        str, typer.Option(help="auto, float32, bfloat16 or float16; accuracy is measured in it too.")
    ] = "auto",
    passes: Annotated[int, typer.Option(min=1, help="Timing passes, with a rest between them.")] = 3,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write everything measured to this file.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write a picture of accuracy over speed.")] = None,
) -> None:
    """Measure accuracy (VOC and COCO AP) and batch-1 speed of models on the same pictures and machine."""
    from pipeline.bench_command import BenchRequest, run_bench

    request = BenchRequest(
        models=tuple(models),
        images=tuple(images or ()),
        annotations=annotations,
        lists=tuple(str(path) for path in test_list or ()),
        against=tuple(name for name in against.split(",") if name),
        input_size=input_size,
        device=device,
        precision=precision,
        passes=passes,
    )
    typer.echo(run_bench(request, json_file=json_file, plot=plot)["text"])
