"""Choices that several commands offer, as typer wants them."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

STORE = "FOLDER|URL"
"""How a store is named in the help: a folder, or s3://BUCKET/PREFIX."""


class ResizeMode(StrEnum):
    letterbox = "letterbox"
    stretch = "stretch"


# Of a job on a cluster, for `label --cluster` and `submit`.
Workers = Annotated[int | None, typer.Option(min=1, help="Workers on the cluster, each a job of its own.")]
Partition = Annotated[str | None, typer.Option(help="Partition or queue of the cluster.")]
Account = Annotated[str | None, typer.Option(help="Account that the cluster charges.")]
Walltime = Annotated[str | None, typer.Option(metavar="TIME", help="Time limit of a cluster's job: 4:00:00.")]
Memory = Annotated[str | None, typer.Option(help="Memory of a cluster's job: 16G.")]
Cpus = Annotated[int | None, typer.Option(min=1, help="Cores of a cluster's job.")]
Gpus = Annotated[int | None, typer.Option(min=1, help="GPUs of a cluster's job.")]
Directives = Annotated[
    list[str] | None, typer.Option("--directive", metavar="LINE", help="A further line for its script: --qos=long.")
]
Config = Annotated[Path | None, typer.Option(metavar="FILE", help="TOML file with any of these for a cluster.")]
