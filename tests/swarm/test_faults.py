"""Processes that are killed and stopped in mid-run, and how the swarm goes on."""

import os
import signal
import threading
import time
from random import Random

import pytest

from tests.swarm.faulty import BACK_SECONDS, Members, averaging, members, process_of
from tests.swarm.hosts import p2pd_of
from tests.swarm.processes import LISTEN, Swarm
from tests.swarm.watcher import Watcher, in_round_after

FREEZE_SECONDS = 20.0
IN_STEP_EPOCHS = 2
"""From the epoch at which a victim has the swarm's state until it is in a round of all."""


def test_a_killed_p2pd_is_started_again_and_its_daemon_goes_on_in_step(
    swarm: Swarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    with members(swarm, 3, monkeypatch) as run:
        victim = run.watchers[0]
        addresses = victim.last.self_.addresses
        for _ in range(2):
            first, epoch = p2pd_of(victim.daemon), run.epoch()
            os.kill(first, signal.SIGKILL)
            back = victim.wait("in a round of three again", in_round_after(epoch, 3), BACK_SECONDS)
            assert back.last_round.epoch <= epoch + 5
            assert back.self_.addresses == addresses
            assert p2pd_of(victim.daemon) != first
            run.wait_all(back.last_round.epoch)
        run.assert_one_history()


def kill_and_restart(run: Members, victim: Watcher) -> str:
    """kill -9 of one member: the others play on at once; it is in step again soon after it is up."""
    survivors = [watcher for watcher in run.watchers if watcher is not victim]
    resyncs = [watcher.resyncs for watcher in survivors]
    at = run.epoch()
    struck = role_and_phase(run, victim)
    killed = time.monotonic()
    victim.daemon.process.kill()
    victim.daemon.process.wait()
    for watcher in survivors:
        watcher.wait("beyond the epoch of the kill", lambda s: s.self_.epoch > at + 1, BACK_SECONDS)
    went_on = time.monotonic() - killed
    victim.daemon.start(run.run_id, *LISTEN)
    synced = victim.wait("training again", lambda s: s.self_.state == "training", BACK_SECONDS).self_.epoch
    back = victim.wait("in a round of all", in_round_after(at + 1, len(run.watchers)), BACK_SECONDS)
    assert [watcher.resyncs for watcher in survivors] == resyncs, "a survivor had to take the state anew"
    epochs = back.last_round.epoch - synced
    assert epochs <= IN_STEP_EPOCHS, f"in step after {epochs} epochs"
    run.wait_all(back.last_round.epoch - 1)
    return f"epoch {at}, {struck}: survivors 2 epochs on after {went_on:.1f} s; in step {epochs} epochs after its sync"


def role_and_phase(run: Members, victim: Watcher) -> str:
    """What a blow hits, some milliseconds before it falls. All in a run without client mode own a part."""
    status = victim.ask().self_
    role = "leader" if run.leader(status.epoch) is victim else "owner and sender"
    return f"{role}, {status.round_phase or status.state}"


def freeze(run: Members, victim: Watcher, processes: list[int]) -> str:
    """SIGSTOP, and SIGCONT later: the others play on; it is in step again soon after it has caught up."""
    survivors = [watcher for watcher in run.watchers if watcher is not victim]
    resyncs = [watcher.resyncs for watcher in survivors]
    at = run.epoch()
    struck = role_and_phase(run, victim)
    stopped = time.monotonic()
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    try:
        for watcher in survivors:
            watcher.wait("beyond the epoch of the stop", lambda s: s.self_.epoch > at + 1, BACK_SECONDS)
        went_on = time.monotonic() - stopped
        threading.Event().wait(max(0.0, FREEZE_SECONDS - went_on))
    finally:
        for process in processes:
            os.kill(process, signal.SIGCONT)
    woken = run.epoch()
    caught_up = victim.wait("level", lambda s: s.self_.state == "training" and s.self_.epoch >= woken, BACK_SECONDS)
    back = victim.wait("in a round of all", in_round_after(woken - 1, len(run.watchers)), BACK_SECONDS)
    assert [watcher.resyncs for watcher in survivors] == resyncs, "a survivor had to take the state anew"
    epochs = back.last_round.epoch - caught_up.self_.epoch
    assert epochs <= IN_STEP_EPOCHS, f"in step after {epochs} epochs"
    run.wait_all(back.last_round.epoch - 1)
    return (
        f"epoch {at}, {struck}: survivors 2 epochs on after {went_on:.1f} s; at {woken} when it woke, "
        f"level at {caught_up.self_.epoch}, in step {epochs} epochs later"
    )


def strike_at_random(run: Members, random: Random) -> Watcher:
    """Waits for a moment to strike, and says at whom: the leader in a round, or anybody at any time."""
    if random.random() < 0.5:
        victim = run.leader()
        victim.wait("averaging", averaging, BACK_SECONDS)
        threading.Event().wait(random.uniform(0.0, 0.3))
        return victim
    threading.Event().wait(random.uniform(0.0, 2.0))
    return random.choice(run.watchers)


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])
def test_kill_9_of_anybody_at_any_time_costs_the_others_no_epoch(
    kills: int, swarm: Swarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = Random(5)
    with members(swarm, 4, monkeypatch) as run:
        for number in range(kills):
            victim = strike_at_random(run, random)
            print(f"kill {number + 1}, {victim.daemon.name}:", kill_and_restart(run, victim), flush=True)
        run.assert_one_history()


@pytest.mark.parametrize("freezes", [1, pytest.param(6, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])
def test_a_daemon_stopped_for_20_seconds_costs_the_others_no_epoch(
    freezes: int, swarm: Swarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = Random(6)
    with members(swarm, 4, monkeypatch) as run:
        for number in range(freezes):
            victim = strike_at_random(run, random)
            processes = [process_of(victim.daemon)]
            if number % 2:  # the whole machine sleeps
                processes.append(p2pd_of(victim.daemon))
            print(f"freeze {number + 1}, {victim.daemon.name}:", freeze(run, victim, processes), flush=True)
        run.assert_one_history()
