"""Whose an error is where several ranks train together: this rank's, another's that was lost, or everybody's."""

import re
from typing import TypeVar

import torch.distributed as dist

from data.errors import WorkLeftError

_GLOO = re.compile(r"\[\S*gloo/transport/\S+:\d+\] ")
"""How gloo begins what it says of a broken connection, which torch passes on as a plain RuntimeError. A violated
assumption of gloo's, which is a fault of the program, begins with "[enforce fail at" instead."""

_NCCL_OWN_FAULT = re.compile(r"unhandled cuda error|invalid usage|invalid argument", re.IGNORECASE)
"""Of NCCL's errors those that this rank's device or this program made (ncclGetErrorString)."""

_MARK = "of_all_ranks"

Error = TypeVar("Error", bound=Exception)


class LostRankError(WorkLeftError):
    """Another rank no longer answers."""


def of_all_ranks(error: Error) -> Error:
    """Mark an error that every rank raises at the same place, so that one may say it for all."""
    error.__dict__[_MARK] = True
    return error


def is_of_all_ranks(error: BaseException) -> bool:
    """Whether every rank has this error."""
    return _MARK in error.__dict__


def is_lost_connection(error: RuntimeError) -> bool:
    """Whether torch says by an error that another rank can't be reached; anything else is a fault of this rank."""
    if isinstance(error, dist.DistError):
        return not _NCCL_OWN_FAULT.search(str(error))
    return _GLOO.search(str(error)) is not None
