"""`distill label`: run the teacher once over pictures, into a store."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cli.choices import STORE, Account, Config, Cpus, Directives, Gpus, Memory, Partition, ResizeMode, Walltime, Workers


class FmNmsMode(StrEnum):
    local_max = "local-max"
    greedy = "greedy"
    overlap = "overlap"
    off = "off"


def label(
    images: Annotated[list[str], typer.Argument(help="Folders or files of pictures; NAME=FOLDER names a root.")],
    teacher: Annotated[Path, typer.Option(help="Darknet .weights (with --cfg), a run, or a .safetensors of one.")],
    store: Annotated[str, typer.Option(metavar=STORE, help="The store to make or to complete.")],
    cfg: Annotated[Path | None, typer.Option(help="Darknet .cfg of the teacher.")] = None,
    names: Annotated[Path | None, typer.Option(help="Class names of a Darknet teacher, one per line.")] = None,
    features: Annotated[list[str] | None, typer.Option(metavar="TAP", help="Keep this layer's feature map.")] = None,
    fm_nms: Annotated[FmNmsMode, typer.Option(help="Feature-map NMS.")] = FmNmsMode.local_max,
    fm_nms_window: Annotated[int, typer.Option(help="Window in cells, odd.")] = 3,
    min_objectness: Annotated[float, typer.Option(min=0, max=1, help="Slots below it are not kept.")] = 0.01,
    classes: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Keep only these classes.")] = None,
    input_size: Annotated[int | None, typer.Option(help="Side of the input; the teacher's own if not given.")] = None,
    resize: Annotated[
        ResizeMode | None, typer.Option(help="How a picture fills the input; as the teacher was trained if not given.")
    ] = None,
    shard_size: Annotated[int | None, typer.Option(min=1, help="Pictures per shard; by memory if not given.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    batch_size: Annotated[str, typer.Option(help="auto or a number.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the CPU's arithmetic.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many pictures.")] = None,
    deduplicate: Annotated[
        bool, typer.Option("--deduplicate", help="Label each content once, under its first name.")
    ] = False,
    add: Annotated[
        bool, typer.Option("--add", help="Add pictures that the store does not have yet, as new shards.")
    ] = False,
    worker: Annotated[
        bool, typer.Option("--worker", help="One of many on a store: leave when the rest is with others.")
    ] = False,
    time_limit: Annotated[
        str | None, typer.Option(metavar="TIME", help="Take no shard that would not end in time: 90m, 3h, 1-12:00:00.")
    ] = None,
    claim_expiry: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="When others take over what a silent worker holds; 5m if not given."),
    ] = None,
    devices: Annotated[
        str | None, typer.Option(metavar="N|NAMES", help="A process each: a number, or cuda:0,cuda:1.")
    ] = None,
    cluster: Annotated[
        str | None, typer.Option(metavar="WHERE", help="local[:N], slurm, pbs, lsf, sge or tcp://host:port, by Dask.")
    ] = None,
    workers: Workers = None,
    partition: Partition = None,
    account: Account = None,
    walltime: Walltime = None,
    memory: Memory = None,
    cpus_per_worker: Cpus = None,
    gpus_per_worker: Gpus = None,
    directive: Directives = None,
    cluster_config: Config = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would take, write nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The result as JSON on standard output.")] = False,
) -> None:
    """Label pictures with a YOLOv2 teacher into a store; the same command completes an unfinished one."""
    from cli.output import parse_auto_int, parse_duration, say
    from data.errors import RequestError
    from data.store.address import store_address
    from data.store.claims import EXPIRY_S
    from data.store.schema import FmNmsAttributes
    from pipeline.cluster_request import ClusterRequest, cluster_request
    from pipeline.label_command import run_label
    from pipeline.label_plan import LabelRequest
    from pipeline.worker import WorkerOptions

    request = LabelRequest(
        images=tuple(images),
        store=store_address(store),
        teacher=teacher,
        cfg=cfg,
        names=names,
        features=tuple(features or ()),
        fm_nms=FmNmsAttributes(fm_nms.value, fm_nms_window, min_objectness),
        classes=tuple(classes or ()),
        input_size=input_size,
        resize=None if resize is None else resize.value,
        shard_size=shard_size,
        device=device,
        precision=precision,
        batch_size=parse_auto_int("--batch-size", batch_size),
        threads=threads,
        limit=limit,
        deduplicate=deduplicate,
        add=add,
    )
    options = WorkerOptions(
        among_many=worker,
        time_limit_s=None if time_limit is None else parse_duration("--time-limit", time_limit),
        claim_expiry_s=EXPIRY_S if claim_expiry is None else parse_duration("--claim-expiry", claim_expiry),
    )
    asked = cluster_request(
        cluster_config,
        workers=workers,
        partition=partition,
        account=account,
        walltime=walltime,
        memory=memory,
        cpus_per_worker=cpus_per_worker,
        gpus_per_worker=gpus_per_worker,
        directives=tuple(directive or ()),
    )
    if cluster is None and asked != ClusterRequest():
        raise RequestError("--workers and the other flags of a cluster need --cluster, or distill submit label")
    if cluster is not None and devices is not None:
        raise RequestError("--devices is for this machine alone; leave it out with --cluster")
    if cluster is not None and not dry_run:
        from pipeline.label_cluster import run_label_on_cluster

        walltime_s = None if asked.walltime is None else parse_duration("--walltime", asked.walltime)
        result = run_label_on_cluster(request, options, cluster, asked, walltime_s)
    elif devices is not None and not dry_run:
        from pipeline.label_devices import resolve_devices, run_label_on_devices

        result = run_label_on_devices(request, options, resolve_devices(devices, device))
    else:
        result = run_label(request, options, dry_run=dry_run)
    say(result, as_json)
