"""What every test may rely on."""

import os
import signal
import tempfile
from collections.abc import Iterator

import pytest

from tests import object_storage
from tests import slurm as slurm_of_tests
from tests.command_line import end_processes


@pytest.fixture(scope="session", autouse=True)
def _interrupts_are_heard() -> Iterator[None]:
    """A job started in the background ignores Ctrl-C, and so would the tests and every process they start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def _processes_end_with_their_test() -> Iterator[None]:
    yield
    end_processes()


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


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """The address of an S3 server in this process; where its packages are not installed the test is skipped."""
    pytest.importorskip("obstore", reason="obstore is not installed: pip install 'distill[objects]'")
    pytest.importorskip("moto", reason="moto is not installed: pip install 'distill[dev]'")
    with object_storage.serving() as endpoint:
        yield endpoint


@pytest.fixture
def bucket(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of an empty bucket; endpoint and credentials are in the environment, as a user puts them there.

    Temporary files of this process and of those that it starts lie in a folder of the test.
    """
    temporary = str(tmp_path_factory.mktemp("temporary"))
    monkeypatch.setenv("TMPDIR", temporary)
    monkeypatch.setattr(tempfile, "tempdir", temporary)
    for name, value in object_storage.environment(s3_endpoint).items():
        monkeypatch.setenv(name, value)
    return object_storage.new_bucket(s3_endpoint)
