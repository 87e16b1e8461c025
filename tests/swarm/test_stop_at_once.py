"""A second signal stops a daemon at once, whatever its threads are at."""

import signal
import sys
from pathlib import Path

import pytest

from tests.swarm import slow_peer
from tests.swarm.processes import Swarm, wait_until
from tests.swarm.test_faults import p2pd_of

AT_ONCE_SECONDS = 4.0
"""1.5 s are promised; the rest is for a machine that is busy with other things."""


@pytest.mark.parametrize("slow", slow_peer.SLOW)
def test_a_second_signal_does_not_wait_for_threads(slow: str, swarm: Swarm) -> None:
    daemon = swarm.daemon("peer")
    daemon.inside = [sys.executable, slow_peer.__file__, slow]
    daemon.start("demo", "--listen", "/ip4/127.0.0.1/tcp/0", "--no-local-discovery")

    def told(words: str) -> bool:
        return words in daemon.log.read_text()

    wait_until(lambda: told(slow_peer.STUCK))
    network_process = p2pd_of(daemon)
    daemon.process.send_signal(signal.SIGINT)
    wait_until(lambda: told("once more to stop at once"))
    if slow == "microbatch":  # it has said good-bye and saved, and waits for the thread
        wait_until(lambda: told("left"))
    assert daemon.running
    daemon.process.send_signal(signal.SIGINT)
    assert daemon.wait_exit(AT_ONCE_SECONDS) == 0
    assert "Traceback" not in daemon.log.read_text()
    wait_until(lambda: not Path(f"/proc/{network_process}").exists())
