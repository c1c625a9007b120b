"""Timing on a clock of our own: what is timed, in which order, and what the figures are made of."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from stages.bench import speed
from stages.bench.speed import (
    DetectorParts,
    Schedule,
    measure_detectors,
    measure_in_turn,
    measure_latency,
    measure_throughputs,
    synchroniser,
)


class Clock:
    """A clock that only work and rest move on."""

    def __init__(self):
        self.now = 0.0
        self.rests = []

    def perf_counter(self):
        return self.now

    def sleep(self, seconds):
        self.rests.append(seconds)
        self.now += seconds

    def work(self, milliseconds, result=None):
        self.now += milliseconds / 1000
        return result


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(speed, "time", SimpleNamespace(perf_counter=clock.perf_counter, sleep=clock.sleep))
    return clock


QUICK = Schedule(passes=1, warmup=0, min_runs=1, min_seconds=0, pause_s=0)


def test_percentiles_fps_and_runs(clock):
    durations = iter(range(1, 102))
    latency = measure_latency(lambda: clock.work(next(durations)), Schedule(1, 0, 101, 0, 0))
    assert latency.median_ms == pytest.approx(51)
    assert latency.p05_ms == pytest.approx(6)
    assert latency.p95_ms == pytest.approx(96)
    assert latency.fps == pytest.approx(1000 / 51)
    assert latency.runs == 101


def test_warm_up_does_not_count_and_passes_are_told_apart(clock):
    durations = iter([900, 10, 10, 10, 900, 30, 30, 30])
    latency = measure_latency(lambda: clock.work(next(durations)), Schedule(2, 1, 3, 0, 0))
    assert latency.pass_medians_ms == pytest.approx((10, 30))
    assert latency.median_ms == pytest.approx(20)
    assert latency.unsteady


def test_passes_alike_are_steady(clock):
    durations = iter([10, 10, 10, 12, 12, 12])
    assert not measure_latency(lambda: clock.work(next(durations)), Schedule(2, 0, 3, 0, 0)).unsteady


def test_a_pass_lasts_for_both_the_least_runs_and_the_least_seconds(clock):
    assert measure_latency(lambda: clock.work(10), Schedule(1, 0, 3, 0.095, 0)).runs == 10
    assert measure_latency(lambda: clock.work(10), Schedule(1, 0, 30, 0.095, 0)).runs == 30


def test_what_is_compared_takes_turns_with_rests_between_passes(clock):
    order = []

    def run(name):
        return lambda: order.append((name, clock.work(1)))

    measure_in_turn({"a": run("a"), "b": run("b")}, Schedule(passes=3, warmup=0, min_runs=2, min_seconds=0, pause_s=7))
    assert [name for name, _ in order] == ["a", "a", "b", "b"] * 3
    assert clock.rests == [7, 7]


def test_the_devices_work_is_waited_for_inside_every_run(clock):
    queued = []

    def finish():
        clock.work(5 * len(queued))
        queued.clear()

    latency = measure_latency(lambda: queued.append(clock.work(1)), Schedule(1, 4, 10, 0, 0), finish)
    assert latency.median_ms == pytest.approx(6)
    assert latency.p95_ms == pytest.approx(6)  # the warm-up's queue was emptied before the first run


def test_a_detector_is_timed_whole_without_postprocessing_and_alone(clock):
    seen = []
    frames = [np.full((4, 6, 3), value, np.uint8) for value in (10, 20, 30)]
    parts = DetectorParts(
        prepare=lambda frame: clock.work(1, int(frame[0, 0, 0])),
        network=lambda prepared: clock.work(20, -prepared),
        postprocess=lambda output, prepared: clock.work(300, seen.append((output, prepared))),
    )
    report = measure_detectors(frames, {"it": parts}, torch.device("cpu"), Schedule(1, 0, 4, 0, 0))["it"]
    assert report.complete.median_ms == pytest.approx(321)
    assert report.without_postprocessing.median_ms == pytest.approx(21)
    assert report.network_only.median_ms == pytest.approx(20)
    assert seen == [(-10, 10), (-20, 20), (-30, 30), (-10, 10)]


def test_detectors_run_without_gradients():
    modes = []
    parts = DetectorParts(
        prepare=lambda frame: torch.zeros(1, 3, 2, 2),
        network=lambda x_BCHW: modes.append(torch.is_inference_mode_enabled()) or x_BCHW,
        postprocess=lambda output, prepared: None,
    )
    measure_detectors([np.zeros((2, 2, 3), np.uint8)], {"it": parts}, torch.device("cpu"), QUICK)
    assert modes
    assert all(modes)


def test_throughput_counts_pictures(clock):
    throughput = measure_throughputs(
        {"net": (lambda x_BCHW: clock.work(40, x_BCHW), torch.zeros(8, 3, 2, 2))}, torch.device("cpu"), QUICK
    )["net"]
    assert throughput.batch_size == 8
    assert throughput.pictures_per_s == pytest.approx(200)


def test_no_frames_no_figure():
    with pytest.raises(ValueError, match="real frames"):
        measure_detectors([], {}, torch.device("cpu"), QUICK)


@pytest.mark.parametrize("values", [{"passes": 0}, {"min_runs": 0}, {"warmup": -1}, {"pause_s": -1.0}])
def test_a_schedule_that_measures_nothing_is_refused(values):
    with pytest.raises(ValueError, match="at least one pass"):
        Schedule(**values)


def test_only_known_devices_are_timed():
    assert synchroniser(torch.device("cpu")) is None
    assert synchroniser(torch.device("cuda", 0)) is not None
    with pytest.raises(ValueError, match="not on meta"):
        synchroniser(torch.device("meta"))
