"""The machine a figure was measured on, in one line: what decides speed, and nothing that tells whose machine it is."""

import os
import platform
import subprocess
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path, PurePosixPath

import torch


@dataclass(frozen=True, slots=True)
class Machine:
    """cores, memory_gib: what this process may use, by affinity and control group, not what the machine has.
    capability: the widest instructions torch uses. gpus: "name, driver version, CUDA version", empty without CUDA."""

    cpu: str
    cores: int
    memory_gib: float
    capability: str
    gpus: tuple[str, ...]
    system: str
    python: str
    torch: str
    torchvision: str
    threads: int

    @property
    def line(self) -> str:
        """All of it, for people."""
        gpus = "; ".join(self.gpus) or "no GPU"
        return (
            f"{self.cpu} ({self.capability}), {self.cores} cores, {self.memory_gib:.1f} GiB; {gpus}; {self.system}; "
            f"Python {self.python}, torch {self.torch}, torchvision {self.torchvision}, {self.threads} threads"
        )


def this_machine() -> Machine:
    """The machine as it stands now: threads are torch's at the time of the call."""
    return Machine(
        cpu=cpu_model(),
        cores=usable_cores(),
        memory_gib=usable_memory() / 2**30,
        capability=torch.backends.cpu.get_cpu_capability(),
        gpus=_gpus(),
        system=_system(),
        python=platform.python_version(),
        torch=torch.__version__,
        torchvision=version("torchvision"),
        threads=torch.get_num_threads(),
    )


def cpu_model(proc: Path = Path("/proc")) -> str:
    """The name the CPU gives itself, or its architecture where it gives none (some ARM machines)."""
    for line in _read(proc / "cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return " ".join(value.split())
    return platform.processor() or platform.machine()


def usable_cores(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Logical cores this process may use: by affinity, and by the CPU quota of its control groups, rounded up."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [_read(folder / "cpu.max").split() for folder in _group_folders(proc, groups, "")]
    quotas += [
        [_read(folder / "cpu.cfs_quota_us").strip(), _read(folder / "cpu.cfs_period_us").strip()]
        for folder in _group_folders(proc, groups, "cpu")
    ]
    for quota in quotas:
        if len(quota) == 2 and quota[0].isdigit() and quota[1].isdigit():
            cores = min(cores, max(1, -(-int(quota[0]) // int(quota[1]))))
    return cores


def usable_memory(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes this process may use: of the machine, and by the limits of its control groups."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [_read(folder / "memory.max").strip() for folder in _group_folders(proc, groups, "")]
    limits += [_read(folder / "memory.limit_in_bytes").strip() for folder in _group_folders(proc, groups, "memory")]
    return min([total, *(int(limit) for limit in limits if limit.isdigit())])


def _group_folders(proc: Path, groups: Path, controller: str) -> list[Path]:
    """The control groups this process is in, each with its ancestors: a limit of any of them holds. `controller` is
    empty for version 2, where one tree serves all."""
    root = groups / controller
    for line in _read(proc / "self" / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            here = PurePosixPath(path)
            return [root / str(folder).lstrip("/") for folder in (here, *here.parents)]
    return []


def _gpus() -> tuple[str, ...]:
    if not torch.cuda.is_available():
        return ()
    driver = _driver_version()
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return tuple(f"{name}, driver {driver}, CUDA {torch.version.cuda}" for name in names)


def _driver_version() -> str:
    try:
        answer = subprocess.run(
            ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return answer.stdout.split()[0] if answer.stdout.split() else "unknown"


def _system() -> str:
    if platform.system() != "Linux":
        return f"{platform.system()} {platform.release()} {platform.machine()}"
    try:
        name = platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        name = "Linux"
    return f"{name} {platform.machine()}"


def _read(path: Path) -> str:
    """The text of a file that not every system has."""
    try:
        return path.read_text()
    except OSError:
        return ""
