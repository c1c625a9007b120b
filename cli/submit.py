"""`distill submit`: label or train as a batch job of Slurm."""

from typing import Annotated, Any

import typer

from cli.choices import Account, Config, Cpus, Directives, Gpus, Memory, Partition, Walltime, Workers

app = typer.Typer(
    name="submit",
    help="Label or train as a batch job of Slurm, which puts itself back into the queue until all is done.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True}

DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the script, submit nothing.")]
AsJson = Annotated[bool, typer.Option("--json", help="The result as JSON on standard output.")]


@app.command("label", context_settings=PASSED_ON, options_metavar="PICTURES... --teacher FILE --store DIR [OPTIONS]")
def label(
    context: typer.Context,
    workers: Workers = None,
    partition: Partition = None,
    account: Account = None,
    walltime: Walltime = None,
    memory: Memory = None,
    cpus_per_worker: Cpus = None,
    gpus_per_worker: Gpus = None,
    directive: Directives = None,
    cluster_config: Config = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Label by a job array: the arguments and flags of `distill label`, and these."""
    from cli.output import parse_duration, say
    from pipeline.cluster_request import cluster_request
    from pipeline.submit_command import submit_label

    given = _parse(context, "label")
    cluster = cluster_request(
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
    walltime_s = None if cluster.walltime is None else parse_duration("--walltime", cluster.walltime)
    say(submit_label(cluster, context.args, given["store"], walltime_s=walltime_s, dry_run=dry_run), as_json)


@app.command("train", context_settings=PASSED_ON, options_metavar="--run DIR [--store DIR] [OPTIONS]")
def train(
    context: typer.Context,
    nodes: Annotated[int, typer.Option(min=1, help="Nodes, with a torchrun each.")] = 1,
    devices: Annotated[int, typer.Option(min=1, help="Devices per node, with a rank each.")] = 1,
    partition: Partition = None,
    account: Account = None,
    walltime: Walltime = None,
    memory: Memory = None,
    cpus_per_node: Cpus = None,
    gpus_per_node: Gpus = None,
    directive: Directives = None,
    cluster_config: Config = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Train by a job that resumes itself: the flags of `distill train`, and these."""
    from cli.output import say
    from pipeline.cluster_request import cluster_request
    from pipeline.submit_command import submit_train

    given = _parse(context, "train")
    cluster = cluster_request(
        cluster_config,
        partition=partition,
        account=account,
        walltime=walltime,
        memory=memory,
        cpus_per_worker=cpus_per_node,
        gpus_per_worker=gpus_per_node,
        directives=tuple(directive or ()),
    )
    say(submit_train(cluster, context.args, given["run"], nodes=nodes, devices=devices, dry_run=dry_run), as_json)


def _parse(context: typer.Context, command: str) -> dict[str, Any]:
    """The other command's parameters, refused here as they would be in the job."""
    root = context.find_root().command
    assert isinstance(root, typer.core.TyperGroup)
    with root.commands[command].make_context(f"distill {command}", list(context.args)) as parsed:
        return parsed.params
