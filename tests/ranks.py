"""Several ranks without several interpreters: a process that has imported everything forks them, and they find one
another as under torchrun."""

from subprocess import CompletedProcess
from typing import Any

from tests.command_line import run_python

_FORKED = """
import os, signal, sys, traceback
import torch
import torch.distributed as dist
import pipeline.train_command
torch.set_num_threads(1)

def served():
    "A store in a process of its own; its port. Threads of a store here would not survive a fork."
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        os.write(send, str(store.port).encode())
        signal.pause()
    return child, int(os.read(receive, 10))

def on_ranks(size, work):
    "Call work(rank) in forked processes; their statuses, negative for a signal."
    host, port = served()
    children = []
    for rank in range(size):
        child = os.fork()
        if child == 0:
            place = dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=size, LOCAL_WORLD_SIZE=size, MASTER_PORT=port)
            os.environ.update({name: str(value) for name, value in place.items()})
            os.environ.update(MASTER_ADDR="127.0.0.1", TORCHELASTIC_USE_AGENT_STORE="True")
            status = 70
            try:
                work(rank)
                status = 0
            except SystemExit as end:
                status = end.code or 0
            except BaseException:
                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        children.append(child)
    statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    os.kill(host, signal.SIGKILL)
    os.waitpid(host, 0)
    return statuses

"""


def run_forked(source: str, *arguments: Any) -> "CompletedProcess[str]":
    """A script that may call `on_ranks(size, work)`."""
    return run_python(_FORKED + source, *arguments)
