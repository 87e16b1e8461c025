"""A machine that gets another address in mid-run: its connections are dead, and where it was nobody answers."""

import time

import pytest

from tests.netlab import NetLab
from tests.swarm.hosts import BACK_SECONDS, PORT, SMALL_RECIPE, assert_one_history_from_now, hosts, needs_networks
from tests.swarm.processes import Swarm

pytestmark = [needs_networks, pytest.mark.timeout(600)]

MOVED, NEW_ADDRESS = 2, "10.78.1.2"
TOGETHER_SECONDS = 90.0


def test_a_machine_that_gets_another_address_is_found_there(swarm: Swarm, monkeypatch: pytest.MonkeyPatch) -> None:
    with NetLab(3) as lab, hosts(swarm, lab, monkeypatch, SMALL_RECIPE, listen="0.0.0.0") as run:
        victim = run.watchers[MOVED - 1]
        others = [watcher for watcher in run.watchers if watcher is not victim]
        at = run.epoch()
        lab.move(MOVED, NEW_ADDRESS)
        moved = time.monotonic()
        new = f"/ip4/{NEW_ADDRESS}/tcp/{PORT}/p2p/"
        seen = victim.wait("at the new address", lambda s: any(new in a for a in s.self_.addresses), BACK_SECONDS)
        noticed = time.monotonic() - moved
        assert not any(lab.address(MOVED) in address for address in seen.self_.addresses)
        for watcher in others:
            watcher.wait("beyond the epoch", lambda s: s.self_.epoch > at + 1, BACK_SECONDS)
        run.wait_all(run.epoch() - 1, TOGETHER_SECONDS)
        print(f"noticed after {noticed:.1f} s, in rounds of all after {time.monotonic() - moved:.1f} s")
        assert_one_history_from_now(run, TOGETHER_SECONDS)
