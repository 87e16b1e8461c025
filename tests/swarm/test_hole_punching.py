"""Two volunteers, each behind a router that lets nobody in, come to a connection of their own: DCUtR, by libp2p."""

import subprocess
import time
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, ExitStack

import pytest

from peer.status import Status
from tests.netlab import NetLab, reason_why_not
from tests.swarm.faulty import Members, started
from tests.swarm.hosts import BACK_SECONDS, PORT, SMALL_RECIPE, wait
from tests.swarm.processes import Daemon, Swarm

RELAY, PUBLIC, ROUTED = 1, (2, 3, 4, 5), (6, 7)
"""libp2p believes in its address outside when four others beside its relay have seen it."""
PUNCH_SECONDS = 180.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif((why_not := reason_why_not(routers=True)) is not None, reason=str(why_not)),
]


def are_connected(lab: NetLab) -> bool:
    """Whether one of the two has a connection to the other's router, and that one to its own."""

    def connected(host: int, to: int) -> bool:
        command = [*lab.inside(host), "ss", "-Htn", "state", "established", "dst", f"{lab.address(to)}:{PORT}"]
        return bool(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())

    one, other = ROUTED
    return connected(one, other) and connected(other, one)


def test_two_behind_routers_meet_without_the_relay(swarm: Swarm, monkeypatch: pytest.MonkeyPatch) -> None:
    with NetLab(7, routed=ROUTED, network="45.78") as lab:
        daemons = {host: swarm.daemon(f"host{host}") for host in lab.hosts}
        for host, daemon in daemons.items():
            daemon.inside = lab.inside(host)
        numbers = {daemon.name: host for host, daemon in daemons.items()}
        peer_id = swarm.command("id", "--home", str(daemons[RELAY].home)).strip()
        relay = f"/ip4/{lab.address(RELAY)}/tcp/{PORT}/p2p/{peer_id}"

        def options(daemon: Daemon) -> tuple[str, ...]:
            host = numbers[daemon.name]
            listen = ("--listen", f"/ip4/{lab.own_address(host)}/tcp/{PORT}", "--no-local-discovery")
            if host == RELAY:
                return (*listen, "--serve-relay", "--role", "aggregator")
            return (*listen, "--initial-peers", relay, *(("--relay", relay) if host in ROUTED else ()))

        def join(*hosts: int) -> AbstractContextManager[Members]:
            return started(swarm, [daemons[host] for host in hosts], monkeypatch, options, SMALL_RECIPE, run_id)

        def in_touch(hosts: Collection[int]) -> Callable[[Status], bool]:
            names = {daemons[host].name for host in hosts}
            return lambda status: names <= {peer.name for peer in status.peers}

        run_id = None
        with ExitStack() as stack:
            for hosts in ((RELAY,), PUBLIC, *([host] for host in ROUTED)):  # each finds those who were there before
                run = stack.enter_context(join(*hosts))
                run_id = run.run_id
                for watcher in run.watchers:
                    watcher.wait("up", lambda status: status.self_.addresses, BACK_SECONDS)
                    watcher.wait("in touch", in_touch(range(1, hosts[0])), BACK_SECONDS)
            until = time.monotonic() + PUNCH_SECONDS
            while not are_connected(lab) and time.monotonic() < until:
                wait(1.0)  # p2pd tells nobody of it
            assert are_connected(lab)
            swarm.stop()
