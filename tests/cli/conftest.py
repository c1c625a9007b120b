"""What the tests of the command line share."""

import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from stages.student import loader
from stages.student.samples import Sample, TrainingPicture


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Results are compared bit for bit between commands, which hold for one number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Syncing matters to power cuts alone; tests/data looks at it."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[TrainingPicture, Sample]]:
    """Every sample that training or the held-out loss made, with its picture."""
    samples, real = [], loader.make_sample

    def spy(item: TrainingPicture, *rest: Any, **named: Any) -> Sample:
        sample = real(item, *rest, **named)
        samples.append((item, sample))
        return sample

    monkeypatch.setattr(loader, "make_sample", spy)
    return samples
