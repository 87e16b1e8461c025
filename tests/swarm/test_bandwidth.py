"""A volunteer who gives 20 of 100 Mbit/s sends no more, and is given less to reduce than the others."""

import time
from itertools import combinations

import pytest

from dht.bandwidth import BURST_SECONDS
from tests.netlab import NetLab
from tests.swarm.faulty import Members
from tests.swarm.hosts import BACK_SECONDS, SENDING_RECIPE, hosts, needs_networks, wait
from tests.swarm.processes import Swarm
from tests.swarm.watcher import in_round_after

pytestmark = [needs_networks, pytest.mark.alone, pytest.mark.timeout(600)]

LIMITED, OTHER, MEGABITS = 2, 1, 20
BYTES_PER_SECOND = MEGABITS * 1e6 / 8
OVERHEAD = 1.1
"""What TCP, TLS, the acknowledgements and the DHT add; measured at the link, below them all."""
WINDOW_SECONDS, SAMPLE_SECONDS = 2.0, 0.2
AT_MOST = OVERHEAD * BYTES_PER_SECOND * (1 + BURST_SECONDS / WINDOW_SECONDS)
ROUNDS = 3


def test_bandwidth_is_honoured_and_decides_the_part(swarm: Swarm, monkeypatch: pytest.MonkeyPatch) -> None:
    def limit(host: int) -> tuple[str, ...]:
        return ("--bandwidth", str(MEGABITS)) if host == LIMITED else ()

    with NetLab(3) as lab, hosts(swarm, lab, monkeypatch, SENDING_RECIPE, limit) as run:
        first = run.epoch()
        samples = []
        while not all(watcher.last and in_round_after(first + ROUNDS, 3)(watcher.last) for watcher in run.watchers):
            samples.append((time.monotonic(), lab.sent_bytes(LIMITED), lab.sent_bytes(OTHER)))
            assert samples[-1][0] < samples[0][0] + BACK_SECONDS
            wait(SAMPLE_SECONDS)
        limited = fastest([(at, sent) for at, sent, _ in samples])
        other = fastest([(at, sent) for at, _, sent in samples])
        parts = {epoch: parts_at(run, epoch) for epoch in range(first, first + ROUNDS + 1) if whole(run, epoch)}
        print(f"sent at most {limited * 8e-6:.1f} of {MEGABITS} Mbit/s, another {other * 8e-6:.1f}; parts {parts}")
        assert limited <= AT_MOST
        assert other > limited
        assert all(part[LIMITED - 1] < 0.6 * min(part[0], part[2]) for part in list(parts.values())[-2:])


def fastest(samples: list[tuple[float, int]]) -> float:
    """Bytes per second in the busiest window."""
    return max(
        (sent - earlier_sent) / (at - earlier)
        for (earlier, earlier_sent), (at, sent) in combinations(samples, 2)
        if at - earlier >= WINDOW_SECONDS
    )


def whole(run: Members, epoch: int) -> bool:
    """Whether all played that round together, and all went well."""
    rounds = [watcher.rounds.get(epoch) for watcher in run.watchers]
    return all(played is not None and played.group_size == len(rounds) for played in rounds)


def parts_at(run: Members, epoch: int) -> list[float]:
    """Each member's share of the vector, from what it sent.

    Of a vector of size V the owner of a part p sends (1 - p)·V as a member and (n - 1)·p·V as an owner; all of them
    together 2·(n - 1)·V.
    """
    sent = [watcher.rounds[epoch].bytes_sent for watcher in run.watchers]
    others = len(sent) - 1
    vector = sum(sent) / (2 * others)
    return [round((bytes_sent / vector - 1) / (others - 1), 3) for bytes_sent in sent]
