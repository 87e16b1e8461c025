"""Four hosts behind 100 Mbit/s links: a cable is pulled, the swarm is cut in two, one link is slow."""

import statistics
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from tests.netlab import NetLab, reason_why_not
from tests.swarm.faulty import RECIPE, Members, averaging, started
from tests.swarm.processes import Daemon, Swarm
from tests.swarm.watcher import Watcher

pytestmark = [
    pytest.mark.skipif((why_not := reason_why_not()) is not None, reason=str(why_not)),
    pytest.mark.timeout(900),
]

PORT = 4001
BACK_SECONDS = 150.0
PULLED_SECONDS = 10.0
PARTED_SECONDS = 30.0
ROUNDS = 8
SLOWDOWN = 1.5


@contextmanager
def hosts(swarm: Swarm, lab: NetLab, monkeypatch: pytest.MonkeyPatch, recipe: str = RECIPE) -> Iterator[Members]:
    """One daemon on every host, which know each other's addresses only from their initial peers, hosts 1 and 3."""
    daemons = {host: swarm.daemon(f"host{host}") for host in lab.hosts}
    for host, daemon in daemons.items():
        daemon.inside = lab.inside(host)
    known = [
        f"/ip4/{lab.address(host)}/tcp/{PORT}/p2p/" + swarm.command("id", "--home", str(daemons[host].home)).strip()
        for host in (1, 3)
    ]
    names = {daemon.name: host for host, daemon in daemons.items()}

    def options(daemon: Daemon) -> Sequence[str]:
        listen = f"/ip4/{lab.address(names[daemon.name])}/tcp/{PORT}"
        initial_peers = [option for address in known for option in ("--initial-peers", address)]
        return ("--listen", listen, *initial_peers, "--no-local-discovery")

    with started(swarm, list(daemons.values()), monkeypatch, options, recipe) as run:
        try:
            run.wait_all(-1, BACK_SECONDS)
            yield run
        finally:
            swarm.stop()  # while their network still is


@pytest.fixture
def lab() -> Iterator[NetLab]:
    with NetLab(4) as lab:
        yield lab


def wait(seconds: float) -> None:
    """For what is defined by its length."""
    threading.Event().wait(seconds)


def assert_one_state_from(run: Members, epoch: int) -> None:
    for later in {later for watcher in run.watchers for later in watcher.digests if later >= epoch}:
        digests = set().union(*(watcher.digests.get(later, set()) for watcher in run.watchers))
        assert len(digests) == 1, f"epoch {later}: {digests}"


def test_a_cable_pulled_in_a_round_and_put_back(swarm: Swarm, lab: NetLab, monkeypatch: pytest.MonkeyPatch) -> None:
    with hosts(swarm, lab, monkeypatch) as run:
        victim, others = run.watchers[1], [run.watchers[0], *run.watchers[2:]]
        resyncs = [watcher.resyncs for watcher in others]
        at = victim.wait("averaging", averaging, BACK_SECONDS).self_.epoch
        lab.unplug(2)
        wait(PULLED_SECONDS)
        lab.plug(2)
        for watcher in others:
            watcher.wait("beyond the epoch", lambda s: s.self_.epoch > at + 1, BACK_SECONDS)
        back = run.epoch()
        run.wait_all(back - 1, BACK_SECONDS)
        print(f"pulled in epoch {at}, others at {back} when back, all in rounds of four by epoch {run.epoch()}")
        assert [watcher.resyncs for watcher in others] == resyncs
        assert_one_state_from(run, back + 1)


def test_half_of_the_swarm_is_cut_off_and_joins_again(
    swarm: Swarm, lab: NetLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hosts(swarm, lab, monkeypatch) as run:
        lab.part(3, 4)
        wait(PARTED_SECONDS)
        lab.unite(3, 4)
        epochs = [watcher.last.self_.epoch for watcher in run.watchers]
        run.wait_all(max(epochs), BACK_SECONDS)
        joined = run.epoch()
        run.wait_all(joined + 1, BACK_SECONDS)
        print(f"at epochs {epochs} when joined again, all in rounds of four by epoch {joined}")
        assert_one_state_from(run, joined)


def round_seconds(run: Members, watchers: Sequence[Watcher]) -> float:
    """The median of the next rounds of these members."""
    first = run.epoch() + 1
    for watcher in watchers:
        watcher.wait("some rounds on", lambda s: s.self_.epoch > first + ROUNDS, 2 * BACK_SECONDS)
    return statistics.median(
        played.duration_seconds
        for watcher in watchers
        for epoch, played in watcher.rounds.items()
        if first <= epoch < first + ROUNDS
    )


def test_one_slow_link_does_not_slow_the_others(swarm: Swarm, lab: NetLab, monkeypatch: pytest.MonkeyPatch) -> None:
    with hosts(swarm, lab, monkeypatch) as run:
        others = run.watchers[:3]
        before = round_seconds(run, others)
        lab.set_rate(4, "5mbit")
        round_seconds(run, others)  # the swarm takes notice
        after = round_seconds(run, others)
        print(f"rounds of {before:.2f} s before, {after:.2f} s with one link at 5 Mbit/s")
        assert after <= SLOWDOWN * before
