"""Hosts behind 100 Mbit/s links: a cable is pulled, the swarm is cut in two, one link is slow."""

import statistics
import time
from collections.abc import Sequence

import pytest

from tests.netlab import NetLab
from tests.swarm.faulty import RECIPE, Members, averaging
from tests.swarm.hosts import (
    BACK_SECONDS,
    SENDING_RECIPE,
    SMALL_RECIPE,
    assert_one_history_from_now,
    assert_one_state_from,
    hosts,
    needs_networks,
    shown_at,
    wait,
)
from tests.swarm.processes import Swarm
from tests.swarm.watcher import Watcher, in_round_after

pytestmark = [needs_networks, pytest.mark.timeout(900)]

PULLED_SECONDS = 10.0
PARTED_SECONDS = 30.0
ROUNDS = 8
LONG_RECIPE = RECIPE.replace("target_batch = 3000", "target_batch = 60000")
"""Epochs that take longer than the results of one need on a slow link: 8 MB at 5 Mbit/s."""
SLOWDOWN = 1.5
TOO_SLOW = "too slow for the run"


def test_a_cable_pulled_in_a_round_and_put_back(swarm: Swarm, monkeypatch: pytest.MonkeyPatch) -> None:
    with NetLab(4) as lab, hosts(swarm, lab, monkeypatch) as run:
        victim, others = run.watchers[1], [run.watchers[0], *run.watchers[2:]]
        resyncs = [watcher.resyncs for watcher in others]
        at = victim.wait("averaging", averaging, BACK_SECONDS).self_.epoch
        lab.unplug(2)
        pulled = time.monotonic()
        for watcher in others:  # while the cable is out, were it for longer than it takes them otherwise
            watcher.wait("beyond the epoch", lambda s: s.self_.epoch > at + 1, BACK_SECONDS)
        went_on = time.monotonic() - pulled
        wait(PULLED_SECONDS - went_on)
        lab.plug(2)
        back = run.epoch()
        run.wait_all(back - 1, BACK_SECONDS)
        print(
            f"pulled in epoch {at}, others 2 epochs on after {went_on:.1f} s, at {back} when it was put back, "
            f"all in rounds of four by epoch {run.epoch()}"
        )
        assert [watcher.resyncs for watcher in others] == resyncs
        assert_one_history_from_now(run, BACK_SECONDS)


@pytest.mark.alone
@pytest.mark.parametrize(
    ("count", "cut_off", "seconds"),
    [
        (5, (4, 5), 0.0),  # as long as both sides need to go on alone
        pytest.param(5, (4, 5), PARTED_SECONDS, marks=pytest.mark.slow),
        pytest.param(4, (3, 4), PARTED_SECONDS, marks=pytest.mark.slow),
    ],
    ids=["two of five for a moment", "two of five", "two of four"],
)
def test_part_of_the_swarm_is_cut_off_and_joins_again(
    count: int, cut_off: tuple[int, ...], seconds: float, swarm: Swarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The majority's history wins and the others take its state; of two halves either may win."""
    with NetLab(count) as lab, hosts(swarm, lab, monkeypatch, SMALL_RECIPE) as run:
        lab.part(*cut_off)
        parted, at = time.monotonic(), run.epoch()
        minority = [run.watchers[host - 1] for host in cut_off]
        majority = [watcher for watcher in run.watchers if watcher not in minority]
        resyncs = {watcher: watcher.resyncs for watcher in run.watchers}
        for side in (majority, minority):
            for watcher in side:
                watcher.wait("going on without the others", in_round_after(at, len(side)), BACK_SECONDS)
        wait(seconds - (time.monotonic() - parted))
        lab.unite(*cut_off)
        epochs = [watcher.last.self_.epoch for watcher in run.watchers if watcher.last is not None]
        run.wait_all(max(epochs), BACK_SECONDS)
        joined = run.epoch()
        run.wait_all(joined + 1, BACK_SECONDS)
        resynced = {watcher.daemon.name: watcher.resyncs - resyncs[watcher] for watcher in run.watchers}
        print(f"at epochs {epochs} when joined again, all in rounds of all by epoch {joined}; resyncs {resynced}")
        assert_one_state_from(run, joined)
        if len(majority) > len(minority):
            assert all(watcher.resyncs > resyncs[watcher] for watcher in minority)
            assert all(watcher.resyncs == resyncs[watcher] for watcher in majority)
            assert all(len(shown_at(majority, epoch)) <= 1 for epoch in range(at, run.epoch()))


def round_seconds(run: Members, watchers: Sequence[Watcher]) -> float:
    """The median of the next rounds of these members."""
    first = run.epoch() + 1
    for watcher in watchers:
        watcher.wait("some rounds on", lambda s: s.self_.epoch > first + ROUNDS, 4 * BACK_SECONDS)
    return statistics.median(
        played.duration_seconds
        for watcher in watchers
        for epoch, played in watcher.rounds.items()
        if first <= epoch < first + ROUNDS
    )


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_one_slow_link_does_not_slow_the_others_and_still_takes_part(
    swarm: Swarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    with NetLab(4) as lab, hosts(swarm, lab, monkeypatch, LONG_RECIPE) as run:
        slow, others = run.watchers[3], run.watchers[:3]
        before = round_seconds(run, others)
        lab.set_rate(4, "5mbit")
        round_seconds(run, others)  # the swarm takes notice
        assert slow.last is not None
        contributed, first = slow.last.self_.samples_contributed, run.epoch()
        after = round_seconds(run, others)
        more = slow.wait(
            "contributing more", lambda s: s.self_.samples_contributed > contributed, BACK_SECONDS
        ).self_.samples_contributed
        groups = [played.group_size for epoch, played in sorted(others[0].rounds.items()) if epoch >= first]
        print(
            f"rounds of {before:.2f} s before, {after:.2f} s with one link at 5 Mbit/s; "
            f"groups of {groups}, {more - contributed} more samples from behind that link"
        )
        assert after <= SLOWDOWN * before


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_link_too_slow_for_the_run_slows_nobody_and_is_told_so(swarm: Swarm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Epochs of a second, whose results take that link eight."""
    with NetLab(4) as lab, hosts(swarm, lab, monkeypatch, SENDING_RECIPE) as run:
        slow, others = run.watchers[3], run.watchers[:3]
        before = round_seconds(run, others)
        lab.set_rate(4, "5mbit")
        round_seconds(run, others)  # the swarm takes notice
        after = round_seconds(run, others)
        slow.wait("told", lambda s: TOO_SLOW in slow.daemon.log.read_text(), 4 * BACK_SECONDS)
        print(f"rounds of {before:.2f} s before, {after:.2f} s with one link at 5 Mbit/s")
        assert after <= SLOWDOWN * before
