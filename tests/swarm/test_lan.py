"""Two machines on one local network find each other by multicast DNS, with no option at all."""

import shutil
import tempfile
from pathlib import Path

import pytest

from tests.netlab import NetLab
from tests.swarm.hosts import BACK_SECONDS, needs_networks
from tests.swarm.processes import Daemon, Swarm

pytestmark = [needs_networks, pytest.mark.timeout(300)]


def test_two_machines_on_one_local_network_meet_without_options(swarm: Swarm) -> None:
    with NetLab(2) as lab:
        runtimes = [Path(tempfile.mkdtemp(prefix="peer-test-")) for _ in lab.hosts]  # two machines share no files
        try:
            for host, runtime in zip(lab.hosts, runtimes, strict=True):
                daemon = Daemon(swarm.directory, f"host{host}", {"PEER_RUNTIME_DIR": str(runtime)})
                daemon.inside = lab.inside(host)
                swarm.daemons.append(daemon.start("demo"))
            for daemon in swarm.daemons:
                status = daemon.wait("in a round of two", in_round_of_two, BACK_SECONDS)
                assert [peer["name"] for peer in status["peers"]] == [
                    other.name for other in swarm.daemons if other is not daemon
                ]
        finally:
            swarm.stop()
            for runtime in runtimes:
                shutil.rmtree(runtime, ignore_errors=True)


def in_round_of_two(status: dict) -> bool:
    return status["last_round"] is not None and status["last_round"]["group_size"] == 2
