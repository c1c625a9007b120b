"""The machine line: limits of control groups hold, and nothing in it tells whose machine it is."""

import os
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from stages.bench import machine
from stages.bench.machine import cpu_model, this_machine, usable_cores, usable_memory


@pytest.fixture
def proc(tmp_path):
    (tmp_path / "proc" / "self").mkdir(parents=True)
    return tmp_path / "proc"


def write(path: Path, text: str):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def many_cores(monkeypatch):
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: set(range(64)), raising=False)


@pytest.mark.usefixtures("many_cores")
@pytest.mark.parametrize(
    ("quota", "cores"), [("max 100000", 64), ("400000 100000", 4), ("250000 100000", 3), ("1000 100000", 1)]
)
def test_a_version_2_quota_of_any_ancestor_limits_the_cores(proc, tmp_path, quota, cores):
    write(proc / "self" / "cgroup", "0::/job/step\n")
    write(tmp_path / "groups" / "job" / "step" / "cpu.max", "max 100000\n")
    write(tmp_path / "groups" / "job" / "cpu.max", quota + "\n")
    assert usable_cores(proc, tmp_path / "groups") == cores


@pytest.mark.usefixtures("many_cores")
def test_a_version_1_quota_limits_the_cores(proc, tmp_path):
    write(proc / "self" / "cgroup", "5:memory:/x\n3:cpu,cpuacct:/job\n0::/\n")
    write(tmp_path / "groups" / "cpu" / "job" / "cpu.cfs_quota_us", "600000\n")
    write(tmp_path / "groups" / "cpu" / "job" / "cpu.cfs_period_us", "100000\n")
    write(tmp_path / "groups" / "cpu" / "cpu.cfs_quota_us", "-1\n")
    write(tmp_path / "groups" / "cpu" / "cpu.cfs_period_us", "100000\n")
    assert usable_cores(proc, tmp_path / "groups") == 6


@pytest.mark.usefixtures("many_cores")
def test_without_control_groups_affinity_says_it(proc, tmp_path):
    assert usable_cores(proc, tmp_path / "groups") == 64


def test_memory_is_the_least_of_all_limits(proc, tmp_path):
    write(proc / "self" / "cgroup", "4:memory:/job\n0::/job/step\n")
    assert usable_memory(proc, tmp_path / "groups") == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    write(tmp_path / "groups" / "memory" / "memory.limit_in_bytes", "300000\n")
    assert usable_memory(proc, tmp_path / "groups") == 300000
    write(tmp_path / "groups" / "job" / "memory.max", "200000\n")
    write(tmp_path / "groups" / "job" / "step" / "memory.max", "max\n")
    assert usable_memory(proc, tmp_path / "groups") == 200000


def test_the_cpu_is_named_or_its_architecture_is(proc):
    assert cpu_model(proc)
    write(proc / "cpuinfo", "processor\t: 0\nmodel name\t: Some  CPU @ 3 GHz\n")
    assert cpu_model(proc) == "Some CPU @ 3 GHz"


def test_the_line_says_what_decides_speed_and_not_whose_machine_it_is():
    line = this_machine().line
    assert f"torch {torch.__version__}" in line
    assert f"{torch.get_num_threads()} threads" in line
    assert ("no GPU" in line) != torch.cuda.is_available()
    assert "\n" not in line
    decisive = "cpu cores memory_gib capability gpus system python torch torchvision threads"
    assert list(asdict(this_machine())) == decisive.split()


def test_gpus_are_listed_with_driver_and_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"GPU {index}")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(machine, "_driver_version", lambda: "580.1")
    assert this_machine().gpus == ("GPU 0, driver 580.1, CUDA 13.0", "GPU 1, driver 580.1, CUDA 13.0")


def test_a_missing_driver_tool_is_said(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert machine._driver_version() == "unknown"
