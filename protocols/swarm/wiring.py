"""Stochastic wiring: which peer of a stage gets a microbatch (SWARM, Ryabinin et al. 2023, section 3.2, algorithm 1).

Interleaved weighted round-robin among those who have the fewest of our works under way. Of each peer is noted how much
time it has been given, by what it usually takes to answer; whoever has been given least comes next. So a peer gets
microbatches in proportion to its speed, spread evenly. By that alone, as in the paper, a slow peer may come to hold
most of a trainer's works while the fast ones have none: what it takes is known the later, the slower it is. Who fails
is struck out, longer each time, and then tried again.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum

from protocols.backoff import doubled
from protocols.identity import PeerId

SMOOTHING = 0.2
"""Weight of the newest response time."""
BACKWARD_FORWARDS = 2.5
"""A backward pass takes about so many times as long: twice, or three times where the forward pass is computed again."""
OUT_SECONDS, MOST_OUT_SECONDS = 0.5, 10.0
"""Who fails for the first time is struck out for so long, then twice as long each time, up to the second."""

FAILING = 3
"""Who has failed so often in a row is not counted on."""


class Task(StrEnum):
    FORWARD = "forward"
    BACKWARD = "backward"

    @property
    def size(self) -> float:
        """In forward passes."""
        return 1.0 if self is Task.FORWARD else BACKWARD_FORWARDS


@dataclass(slots=True)
class _Peer:
    place: float
    """Which of two that have been given the same time comes first."""
    given: float
    """Seconds of work, as far as one can know beforehand."""
    seconds: dict[Task, float] = field(default_factory=dict)
    """How long it takes to answer, smoothed."""
    under_way: int = 0
    """Our works that it has not answered yet."""
    failures: int = 0
    """In a row."""
    out_until: float = float("-inf")
    busy_until: float = float("-inf")

    def expected(self, task: Task, otherwise: float) -> float:
        """Seconds until it answers; `otherwise` of a forward pass, as long as nothing is known of it."""
        if task in self.seconds:
            return self.seconds[task]
        known = [seconds / done.size for done, seconds in self.seconds.items()]
        return task.size * (known[0] if known else otherwise)


class Wiring:
    """Of one trainer."""

    def __init__(self, random: Callable[[], float]) -> None:
        """`random` gives numbers in [0, 1): trainers that start together do not all begin with the same peer."""
        self._random = random
        self._stages: dict[int, dict[PeerId, _Peer]] = {}

    def set_peers(self, stage: int, peers: Iterable[PeerId]) -> None:
        """Who serves the stage now; who is new comes next."""
        known = self._stages.setdefault(stage, {})
        wanted = set(peers)
        for peer in known.keys() - wanted:
            del known[peer]
        first = self._least_given(stage)
        for peer in sorted(wanted - known.keys()):
            known[peer] = _Peer(self._random(), first)

    def choose(
        self, stage: int, now: float, task: Task, exclude: Collection[PeerId] = (), wanted: PeerId | None = None
    ) -> PeerId | None:
        """Who does the next one: `wanted` if it can, and has no more to do than others.

        None when all are struck out, busy or excluded. `now`: monotonic seconds.
        """
        able = {
            peer: each
            for peer, each in self._stages.get(stage, {}).items()
            if peer not in exclude and max(each.out_until, each.busy_until) <= now
        }
        if not able:
            return None
        fewest = min(each.under_way for each in able.values())
        if wanted in able and able[wanted].under_way <= fewest + 1:
            chosen = wanted
        else:
            free = (peer for peer, each in able.items() if each.under_way == fewest)
            chosen = min(free, key=lambda peer: (able[peer].given, able[peer].place))
        able[chosen].given += able[chosen].expected(task, self._usual(stage))
        return chosen

    @contextmanager
    def under_way(self, stage: int, peer: PeerId) -> Iterator[None]:
        """While one of our works is there."""
        known = self._peer(stage, peer)
        if known is not None:
            known.under_way += 1
        try:
            yield
        finally:
            if known is not None:
                known.under_way -= 1

    def done(self, stage: int, peer: PeerId, task: Task, seconds: float) -> None:
        """It has answered after so long."""
        if (known := self._peer(stage, peer)) is not None:
            before = known.seconds.get(task, seconds)
            known.seconds[task] = before + SMOOTHING * (seconds - before)
            known.failures = 0

    def failed(self, stage: int, peer: PeerId, now: float) -> None:
        """It could not be reached, or did not answer in time; it comes back behind nobody, and before nobody."""
        if (known := self._peer(stage, peer)) is not None:
            known.out_until = now + doubled(OUT_SECONDS, known.failures, MOST_OUT_SECONDS)
            known.failures += 1
            self._catch_up(stage, known)

    def busy(self, stage: int, peer: PeerId, until: float) -> None:
        """It has too much to do, or is not there yet."""
        if (known := self._peer(stage, peer)) is not None:
            known.busy_until = until
            self._catch_up(stage, known)

    def usual(self, stage: int, peer: PeerId, task: Task) -> float | None:
        """Seconds until it answers, by what it has taken so far; None as long as nothing is known of it.

        Of who has answered nothing, and failed, what the others take: it is not waited for as a newcomer again.
        """
        known = self._peer(stage, peer)
        if known is None or not (known.seconds or known.failures):
            return None
        return known.expected(task, self._usual(stage))

    def is_failing(self, stage: int, peer: PeerId) -> bool:
        """Whether it serves the stage by its word alone, as far as we have tried."""
        known = self._peer(stage, peer)
        return known is not None and known.failures >= FAILING

    def share(self, stage: int) -> dict[PeerId, float]:
        """What part of the stage's microbatches each peer is to get, by how long it takes to answer."""
        usual = self._usual(stage)
        rates = {
            peer: 1 / max(1e-9, sum(each.expected(task, usual) for task in Task))
            for peer, each in self._stages.get(stage, {}).items()
        }
        total = sum(rates.values())
        return {peer: rate / total for peer, rate in rates.items()}

    def _peer(self, stage: int, peer: PeerId) -> _Peer | None:
        return self._stages.get(stage, {}).get(peer)

    def _catch_up(self, stage: int, late: _Peer) -> None:
        """When it is back it does not get all at once what the others were given meanwhile."""
        others = (each.given for each in self._stages[stage].values() if each is not late)
        late.given = max(late.given, min(others, default=0.0))

    def _least_given(self, stage: int) -> float:
        return min((each.given for each in self._stages.get(stage, {}).values()), default=0.0)

    def _usual(self, stage: int) -> float:
        """Seconds of a forward pass on this stage; 1 as long as nobody has done any."""
        peers = self._stages.get(stage, {}).values()
        known = [seconds / task.size for each in peers for task, seconds in each.seconds.items()]
        return sum(known) / len(known) if known else 1.0
