"""A machine that loses its power behind a pulled cable: nothing tells the others that its connections are dead."""

import time

import pytest

from tests.netlab import NetLab
from tests.swarm.hosts import BACK_SECONDS, SMALL_RECIPE, assert_one_history_from_now, hosts, kill_whole, needs_networks
from tests.swarm.processes import Swarm

pytestmark = [needs_networks, pytest.mark.timeout(600)]

VICTIM = 2
TOGETHER_SECONDS = 60.0
"""From the cable's return until all are in one round."""


def test_half_open_connections_of_a_machine_that_restarts_are_replaced(
    swarm: Swarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    with NetLab(3) as lab, hosts(swarm, lab, monkeypatch, SMALL_RECIPE) as run:
        victim = run.watchers[VICTIM - 1]
        others = [watcher for watcher in run.watchers if watcher is not victim]
        resyncs = [watcher.resyncs for watcher in others]
        lab.unplug(VICTIM)
        kill_whole(victim.daemon)  # neither FIN nor RST gets out, and none will be sent again
        at = run.epoch()
        victim.wait_gone()
        victim.daemon.start_again()
        victim.wait("up", lambda s: True, BACK_SECONDS)
        for watcher in others:
            watcher.wait("beyond the epoch", lambda s: s.self_.epoch > at + 1, BACK_SECONDS)
        back = run.epoch()
        lab.plug(VICTIM)
        plugged = time.monotonic()
        run.wait_all(back - 1, TOGETHER_SECONDS)
        print(f"in rounds of all {time.monotonic() - plugged:.1f} s after the cable was back")
        assert [watcher.resyncs for watcher in others] == resyncs
        assert_one_history_from_now(run, TOGETHER_SECONDS)
