"""How fast a detector is, measured so that the figure can be believed.

Everything compared is timed in turn, in several passes with pauses between them: a processor that grows hot or a
neighbour that wakes up slows all of them alike. Each pass warms up first. Every run ends with the device's work done,
and takes the next of several real frames, so that neither a queue nor a cache flatters it.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Frame = NDArray[np.uint8]
_Item = TypeVar("_Item")
_Prepared = TypeVar("_Prepared")
_Output = TypeVar("_Output")


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long to measure: per pass `warmup` runs that do not count, then runs until both `min_runs` and `min_seconds`
    are reached; `passes` of that with `pause_s` seconds of rest before each but the first."""

    passes: int = 3
    warmup: int = 5
    min_runs: int = 20
    min_seconds: float = 1.0
    pause_s: float = 1.0

    def __post_init__(self) -> None:
        if self.passes < 1 or self.min_runs < 1 or min(self.warmup, self.min_seconds, self.pause_s) < 0:
            raise ValueError(f"A schedule needs at least one pass of at least one run, and no negative number: {self}")


@dataclass(frozen=True, slots=True)
class Latency:
    """Wall-clock time of one run, over all passes. fps: 1000 / median_ms."""

    median_ms: float
    p05_ms: float
    p95_ms: float
    fps: float
    runs: int
    pass_medians_ms: tuple[float, ...]

    @property
    def unsteady(self) -> bool:
        """Passes differ by more than a quarter: the machine was busy or grew hot, the figure is worth little."""
        return max(self.pass_medians_ms) > 1.25 * min(self.pass_medians_ms)


@dataclass(frozen=True, slots=True)
class DetectorParts(Generic[_Prepared, _Output]):
    """A detector for one frame at a time, as three calls, each taking what the one before it gave.

    prepare: a decoded picture (uint8 [height, width, 3], RGB) to what the network takes, a tensor or one with its view.
    network: that to the raw output. postprocess: the output, and what was prepared, to boxes in host memory.
    """

    prepare: Callable[[Frame], _Prepared]
    network: Callable[[_Prepared], _Output]
    postprocess: Callable[[_Output, _Prepared], object]


@dataclass(frozen=True, slots=True)
class SpeedReport:
    """Batch 1. complete: from the decoded frame to boxes, NMS included; without_postprocessing: from the decoded frame
    to the network's output; network_only: from the prepared input to that output, with what copying to the device
    `DetectorParts.network` does."""

    complete: Latency
    without_postprocessing: Latency
    network_only: Latency


@dataclass(frozen=True, slots=True)
class Throughput:
    """Pictures per second through the network alone, by the median batch."""

    batch_size: int
    pictures_per_s: float
    batch: Latency


def measure_latency(
    run: Callable[[], object], schedule: Schedule, synchronise: Callable[[], None] | None = None
) -> Latency:
    """Time one callable; `synchronise` waits for the device after each run, where there is one to wait for."""
    return measure_in_turn({"run": run}, schedule, synchronise)["run"]


def measure_in_turn(
    runs: Mapping[str, Callable[[], object]], schedule: Schedule, synchronise: Callable[[], None] | None = None
) -> dict[str, Latency]:
    """Time several callables, every one in every pass."""
    wait = synchronise or _nothing
    times_ms: dict[str, list[list[float]]] = {name: [] for name in runs}
    for number in range(schedule.passes):
        if number:
            time.sleep(schedule.pause_s)
        for name, run in runs.items():
            times_ms[name].append(_one_pass(run, schedule, wait))
    return {name: _latency(passes) for name, passes in times_ms.items()}


def measure_detectors(
    frames: Sequence[Frame], detectors: Mapping[str, DetectorParts[Any, Any]], device: torch.device, schedule: Schedule
) -> dict[str, SpeedReport]:
    """Time detectors side by side on the same decoded frames, in inference mode.

    Every part is timed in a run of its own, not by stopping inside one, so that no part pays for the clock. Raises
    ValueError without frames.
    """
    if not frames:
        raise ValueError("Speed is measured on real frames; none were given.")
    with torch.inference_mode():
        runs: dict[str, Callable[[], object]] = {}
        for name, parts in detectors.items():
            runs[f"complete/{name}"] = _over(frames, _complete(parts))
            runs[f"without/{name}"] = _over(frames, _without_postprocessing(parts))
            runs[f"network/{name}"] = _over([parts.prepare(frame) for frame in frames], parts.network)
        measured = measure_in_turn(runs, schedule, synchroniser(device))
    return {
        name: SpeedReport(
            complete=measured[f"complete/{name}"],
            without_postprocessing=measured[f"without/{name}"],
            network_only=measured[f"network/{name}"],
        )
        for name in detectors
    }


def measure_throughputs(
    networks: Mapping[str, tuple[Callable[[Tensor], Tensor], Tensor]], device: torch.device, schedule: Schedule
) -> dict[str, Throughput]:
    """Time networks side by side, each with its own batch [B, 3, H, W] on the device, in inference mode."""
    with torch.inference_mode():
        runs = {name: _over([batch_BCHW], network) for name, (network, batch_BCHW) in networks.items()}
        measured = measure_in_turn(runs, schedule, synchroniser(device))
    return {
        name: Throughput(len(batch_BCHW), len(batch_BCHW) * measured[name].fps, measured[name])
        for name, (_, batch_BCHW) in networks.items()
    }


def synchroniser(device: torch.device) -> Callable[[], None] | None:
    """What waits until a device has done all its work; None for the CPU, which is done when a call returns."""
    if device.type == "cpu":
        return None
    if device.type == "cuda":
        return lambda: torch.cuda.synchronize(device)
    raise ValueError(f"Speed is measured on cpu and cuda, not on {device.type}.")


def _one_pass(run: Callable[[], object], schedule: Schedule, wait: Callable[[], None]) -> list[float]:
    for _ in range(schedule.warmup):
        run()
    wait()
    times_ms: list[float] = []
    began = time.perf_counter()
    while len(times_ms) < schedule.min_runs or time.perf_counter() - began < schedule.min_seconds:
        start = time.perf_counter()
        run()
        wait()
        times_ms.append((time.perf_counter() - start) * 1000)
    return times_ms


def _latency(passes: Sequence[Sequence[float]]) -> Latency:
    p05, median, p95 = np.percentile(np.concatenate(passes), [5, 50, 95]).tolist()
    return Latency(
        median_ms=median,
        p05_ms=p05,
        p95_ms=p95,
        fps=1000 / median,
        runs=sum(map(len, passes)),
        pass_medians_ms=tuple(float(np.median(times)) for times in passes),
    )


def _over(items: Sequence[_Item], call: Callable[[_Item], object]) -> Callable[[], object]:
    turn = count()
    return lambda: call(items[next(turn) % len(items)])


def _complete(parts: DetectorParts[Any, Any]) -> Callable[[Frame], object]:
    def detect(frame: Frame) -> object:
        prepared = parts.prepare(frame)
        return parts.postprocess(parts.network(prepared), prepared)

    return detect


def _without_postprocessing(parts: DetectorParts[Any, Any]) -> Callable[[Frame], object]:
    return lambda frame: parts.network(parts.prepare(frame))


def _nothing() -> None:
    pass
