"""What the tests of the pipeline share."""

import os
from collections.abc import Iterator

import pytest
import torch


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
