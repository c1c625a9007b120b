"""What every test may rely on."""

import os
import signal
from collections.abc import Iterator

import pytest

from tests import slurm as slurm_of_tests


@pytest.fixture(scope="session", autouse=True)
def _interrupts_are_heard() -> Iterator[None]:
    """A job started in the background ignores Ctrl-C, and so would the tests and every process they start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[slurm_of_tests.Slurm]:
    """A real Slurm of two nodes; where there is none the test is skipped, or fails if the environment requires one."""
    try:
        started = slurm_of_tests.start(tmp_path_factory.mktemp("slurm"))
    except RuntimeError as error:
        if os.environ.get(slurm_of_tests.REQUIRED):
            pytest.fail(f"{slurm_of_tests.REQUIRED} is set, and {error}")
        pytest.skip(str(error))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(started.folder / "slurm.conf"))
        yield started
        slurm_of_tests.stop(started)
