import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# A busy machine is slow, not wrong; whole tests have a time limit (pytest-timeout).
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


def pytest_configure() -> None:
    """SIGTERM ends the tests as Ctrl-C does: what they have started is ended, too."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture
def runtime_directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A `PEER_RUNTIME_DIR` of the test's own. Short, for it holds sockets: pytest's own directories may be too long."""
    with tempfile.TemporaryDirectory(prefix="peer-test-") as directory:
        monkeypatch.setenv("PEER_RUNTIME_DIR", directory)
        yield Path(directory)
