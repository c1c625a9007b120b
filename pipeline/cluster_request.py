"""What is asked of a cluster for one job: by flags, or by a small TOML file that a site keeps."""

import dataclasses
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.errors import RequestError


@dataclass(frozen=True, slots=True)
class ClusterRequest:
    """Of each of `workers` jobs; None leaves a thing to the cluster's own default, or to the command.

    partition: or queue. walltime, memory: as the batch system writes them. directives: further lines for its script,
    without their prefix (`--constraint=a100`). setup: shell lines before the work (`module load cuda`). interface: of
    the network between a Dask scheduler here and its workers (`ib0`).
    """

    workers: int | None = None
    partition: str | None = None
    account: str | None = None
    walltime: str | None = None
    memory: str | None = None
    cpus_per_worker: int | None = None
    gpus_per_worker: int | None = None
    directives: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    interface: str | None = None


def cluster_request(file: Path | None, **flags: Any) -> ClusterRequest:
    """The file's entries, which are the fields of ClusterRequest, and the flags that were given over them.

    Raises RequestError for a file that is not TOML, and for an entry that is none or not of its type.
    """
    values: dict[str, Any] = {}
    if file is not None:
        try:
            values = tomllib.loads(file.read_text())
        except OSError as error:
            raise RequestError(f"--cluster-config {file} can't be read: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise RequestError(f"--cluster-config {file} is not TOML: {error}") from error
    kinds = {field.name: field.type for field in dataclasses.fields(ClusterRequest)}
    for name, value in values.items():
        if name not in kinds:
            raise RequestError(f"--cluster-config {file}: {name} is unknown; known are {', '.join(kinds)}")
        if not _is(value, str(kinds[name])):
            raise RequestError(
                f"--cluster-config {file}: {name} is {value!r}; {_KINDS[_kind(str(kinds[name]))]} expected"
            )
    values |= {name: value for name, value in flags.items() if value not in (None, ())}
    lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    return ClusterRequest(**(values | lists))


_KINDS = {"int": "a whole number of at least 1 was", "str": "a text in quotes was", "tuple": "a list of texts was"}


def _kind(annotation: str) -> str:
    return next(kind for kind in ("tuple", "int", "str") if kind in annotation)


def _is(value: Any, annotation: str) -> bool:
    kind = _kind(annotation)
    if kind == "tuple":
        return isinstance(value, list) and all(isinstance(each, str) for each in value)
    return (type(value) is int and value >= 1) if kind == "int" else isinstance(value, str)
