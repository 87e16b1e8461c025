"""A daemon whose home lies on a disk that fills up while it trains."""

import pytest

from tests.small_disk import empty, fill, small_disk
from tests.swarm.faulty import BACK_SECONDS, RECIPE, started
from tests.swarm.processes import LISTEN, Swarm, wait_until

SMALL = RECIPE.replace("width = 1024", "width = 32").replace("target_batch = 3000", "target_batch = 1000")


def test_a_daemon_trains_on_while_its_home_has_no_space_left(swarm: Swarm, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon = swarm.daemon("peer")
    with small_disk(daemon.home) as disk:
        with started(swarm, [daemon], monkeypatch, lambda _daemon: (*LISTEN, "--no-local-discovery"), SMALL) as run:
            (watcher,) = run.watchers
            wait_until(lambda: any(disk.glob("runs/*/snapshots/epoch-*")))
            fill(disk)
            full = watcher.ask().self_.epoch
            watcher.wait("training on", lambda status: status.self_.epoch > full + 2, BACK_SECONDS)
            wait_until(lambda: "snapshots cannot be saved" in daemon.log.read_text())
            empty(disk)
            wait_until(lambda: "snapshots are saved again" in daemon.log.read_text())
            daemon.stop()
        assert daemon.process.returncode == 0
        log = daemon.log.read_text()
        assert log.count("snapshots cannot be saved") == 1
        assert "Traceback" not in log
