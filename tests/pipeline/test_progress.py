"""Progress as lines: the rate is that of the work done now, and what was done before doesn't flatter it."""

import re
import sys

import pytest

from pipeline import progress
from pipeline.progress import LineProgress, SilentProgress, show_progress


class Clock:
    """Seconds that pass only when told to."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()[-1] if captured.err else ""


def test_rate_and_time_left(clock: Clock, capsys: pytest.CaptureFixture[str]):
    lines = LineProgress("labelling", 100, "pictures", 40)
    clock.now = 9.0
    lines.advance(10)
    assert last_line(capsys) == ""  # not yet: a line every ten seconds
    clock.now = 10.0
    lines.note("waiting for decoding")
    lines.advance(10)
    assert last_line(capsys) == "labelling: 60/100 pictures, 2.0/s, 20 s left · waiting for decoding"


def test_what_was_done_before_does_not_count(clock: Clock, capsys: pytest.CaptureFixture[str]):
    lines = LineProgress("training", 1000, "batches", 0)
    lines.skip(500)
    clock.now = 10.0
    lines.advance(100)
    assert last_line(capsys) == "training: 600/1000 batches, 10.0/s, 40 s left"


def test_counts_from_elsewhere(clock: Clock, capsys: pytest.CaptureFixture[str]):
    lines = LineProgress("verifying", 1, "shards", 0)
    for done in (3, 8):
        clock.now += 6
        lines.count(done, 16)
    assert last_line(capsys) == "verifying: 8/16 shards, 0.7/s, 12 s left"


def test_a_log_gets_lines_and_always_the_last_one(capsys: pytest.CaptureFixture[str]):
    with show_progress("hashing", 3, "pictures") as shown:
        for _ in range(3):
            shown.advance()
    assert re.fullmatch(r"hashing: 3/3 pictures, [\d.]+/s, 0 s left", last_line(capsys))


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with show_progress("training", 10, "batches") as shown:
        shown.skip(4)
        shown.note("loss 0.5")
        shown.advance(2)
        shown.count(8, 10)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "training" in captured.err
    assert "8/10" in captured.err


def test_silence(capsys: pytest.CaptureFixture[str]):
    silent = SilentProgress()
    silent.advance()
    silent.skip(3)
    silent.note("x")
    silent.count(1, 2)
    assert capsys.readouterr() == ("", "")
