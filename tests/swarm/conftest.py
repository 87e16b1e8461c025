"""A swarm of real daemons for each test that asks for one."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.swarm.processes import Swarm


@pytest.fixture
def swarm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Swarm]:
    runtime = Path(tempfile.mkdtemp(prefix="peer-test-"))  # short: it holds sockets
    monkeypatch.setenv("PEER_RUNTIME_DIR", str(runtime))
    swarm = Swarm(tmp_path, runtime)
    try:
        yield swarm
    finally:
        swarm.stop()
        shutil.rmtree(runtime, ignore_errors=True)
