"""Peers that start at the same moment, each with the other as its initial peer."""

import pytest

from peer.home import Home
from tests.swarm.processes import Daemon, Swarm, free_ports


@pytest.mark.parametrize("attempt", range(20))
def test_first_peers_started_together_become_one_swarm(swarm: Swarm, attempt: int) -> None:
    daemons = [swarm.daemon(name) for name in ("left", "right")]
    peer_ids = [Home(daemon.home).identity().peer_id for daemon in daemons]
    with free_ports(2) as ports:
        addresses = [f"/ip4/127.0.0.1/tcp/{port}" for port in ports]
    for me, other in ((0, 1), (1, 0)):
        start_at(daemons[me], addresses[me], f"{addresses[other]}/p2p/{peer_ids[other]}")
    for me, other in ((0, 1), (1, 0)):
        status = daemons[me].wait("in a round of two", lambda s: (s["last_round"] or {}).get("group_size") == 2)
        assert [member["peer_id"] for member in status["peers"]] == [peer_ids[other]]


def start_at(daemon: Daemon, address: str, initial_peer: str) -> None:
    daemon.start("demo", "--listen", address, "--initial-peers", initial_peer, "--no-local-discovery")
