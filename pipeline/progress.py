"""Progress of long work on standard error: how far, how fast, how long yet, and what it is waiting for."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress


class Progress(Protocol):
    """What a stage reports to: items done now, items that were done before (they don't count in the rate), a short note
    (a loss, what is waited for), or both numbers at once."""

    def advance(self, items: int = 1) -> None: ...

    def skip(self, items: int) -> None: ...

    def note(self, text: str) -> None: ...

    def count(self, done: int, total: int) -> None: ...


class SilentProgress:
    """Nothing is shown; for tests and for work that is a part of other work."""

    def advance(self, items: int = 1) -> None:
        pass

    def skip(self, items: int) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def count(self, done: int, total: int) -> None:
        pass


class LineProgress:
    """A line every few seconds, for logs and batch jobs, where a bar would only fill the file."""

    def __init__(self, title: str, total: int, unit: str, done: int, every_s: float = 10.0) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.first = self.done = done
        self.every_s, self.text = every_s, ""
        self.began = self.said = time.monotonic()

    def advance(self, items: int = 1) -> None:
        self.done += items
        if time.monotonic() - self.said >= self.every_s:
            self.say()

    def skip(self, items: int) -> None:
        self.first += items
        self.done += items

    def note(self, text: str) -> None:
        self.text = text

    def count(self, done: int, total: int) -> None:
        self.total = total
        self.advance(done - self.done)

    def say(self) -> None:
        self.said = time.monotonic()
        rate = (self.done - self.first) / max(self.said - self.began, 1e-9)
        left = f", {(self.total - self.done) / rate:.0f} s left" if rate else ""
        note = f" · {self.text}" if self.text else ""
        print(
            f"{self.title}: {self.done}/{self.total} {self.unit}, {rate:.1f}/s{left}{note}", file=sys.stderr, flush=True
        )


class BarProgress:
    """A bar, for people at a terminal."""

    def __init__(self, bar: RichProgress, title: str, total: int, unit: str, done: int) -> None:
        self.bar, self.first = bar, done
        self.began = time.monotonic()
        self.task = bar.add_task(title, total=total, completed=done, unit=unit, rate="", note="")

    def advance(self, items: int = 1) -> None:
        self.bar.advance(self.task, items)
        done = self.bar.tasks[0].completed - self.first
        self.bar.update(self.task, rate=f"{done / max(time.monotonic() - self.began, 1e-9):.1f}/s")

    def skip(self, items: int) -> None:
        self.first += items
        self.bar.advance(self.task, items)

    def note(self, text: str) -> None:
        self.bar.update(self.task, note=text)

    def count(self, done: int, total: int) -> None:
        self.bar.update(self.task, total=total)
        self.advance(done - int(self.bar.tasks[0].completed))


@contextmanager
def show_progress(title: str, total: int, unit: str, done: int = 0) -> Iterator[Progress]:
    """A bar on a terminal, lines elsewhere. `done` items were there before and don't count in the rate.

    Of several processes that torchrun or `train --devices` started to do one work, only the first shows it.
    """
    if int(os.environ.get("RANK", 0)):
        yield SilentProgress()
        return
    if not sys.stderr.isatty():
        lines = LineProgress(title, total, unit, done)
        yield lines
        lines.say()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]} {task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with RichProgress(*columns, console=Console(stderr=True)) as bar:
        yield BarProgress(bar, title, total, unit, done)
