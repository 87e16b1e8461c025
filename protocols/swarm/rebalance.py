"""Adaptive rebalancing: which peer moves to which stage (SWARM, Ryabinin et al. 2023, section 3.2).

A pipeline is as fast as its slowest stage, and a stage as the sum of its peers. Every peer looks at what all say of
themselves in their signed records, and comes to the same move; only the one who is to move does. The paper moves a peer
of the stage with the least queue to that with the greatest; here it is the peer that helps most, and never one whose
stage would be left empty. Where no single move helps, two peers change places.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from protocols.identity import PeerId

HYSTERESIS = 1.05
"""A move has to make the slowest stage that it changes so much faster."""
COOL_DOWN_SECONDS = 10.0
"""Who has just moved stays for so long, until the others' records tell of it."""
FASTEST = 8.0
"""So many times the median rate is believed, or who claims more would draw the others away from its stage."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a peer says of itself."""

    peer: PeerId
    stage: int
    rate: float
    """Microbatches per second that it could do; 0: not known, as of who has not begun."""
    queue: int = 0
    moving_to: int | None = None
    """It is on its way there, and counts there."""
    since: float = COOL_DOWN_SECONDS
    """For so many seconds it has been where it is."""

    @property
    def place(self) -> int:
        return self.stage if self.moving_to is None else self.moving_to


@dataclass(frozen=True, slots=True)
class Move:
    peer: PeerId
    source: int
    target: int


def rates(loads: Sequence[Load], stages: int) -> list[float]:
    """Microbatches per second of each stage, as far as what its peers say is believed."""
    sums = [0.0] * stages
    for load, rate in zip(loads, _believed(loads), strict=True):
        if load.place < stages:
            sums[load.place] += rate
    return sums


def neediest_stage(loads: Sequence[Load], stages: int) -> int:
    """Where a newcomer helps most; of equal ones the stage with the longest queues, then the first."""
    speed = rates(loads, stages)
    queues = [sum(load.queue for load in loads if load.place == stage) for stage in range(stages)]
    return min(range(stages), key=lambda stage: (speed[stage], -queues[stage], stage))


def next_move(loads: Sequence[Load], stages: int) -> Move | None:
    """Who is to move where, now; None where nothing is gained by it."""
    ordered = sorted((load for load in loads if load.place < stages), key=lambda load: load.peer)
    speeds = _believed(ordered)
    sums = rates(ordered, stages)
    peers = [sum(load.place == stage for load in ordered) for stage in range(stages)]
    pairs = {frozenset((load.stage, load.moving_to)) for load in ordered if load.moving_to is not None}
    free = [
        (load, speed)
        for load, speed in zip(ordered, speeds, strict=True)
        if load.moving_to is None and peers[load.stage] > 1
    ]
    empty = next((stage for stage in range(stages) if not peers[stage]), None)
    if empty is not None:
        return _best(sums, ((load, speed, empty) for load, speed in free), 1.0)
    rested = [(load, speed) for load, speed in free if load.since >= COOL_DOWN_SECONDS]
    single = (
        (load, speed, target)
        for load, speed in rested
        for target in range(stages)
        if target != load.stage and frozenset((load.stage, target)) not in pairs
    )
    return _best(sums, single, HYSTERESIS) or _best_swap(sums, rested, pairs)


def _believed(loads: Sequence[Load]) -> list[float]:
    """The rate of each; who does not know its own counts as ordinary."""
    known = [load.rate for load in loads if load.rate > 0]
    ordinary = median(known) if known else 1.0
    return [min(load.rate, FASTEST * ordinary) if load.rate > 0 else ordinary for load in loads]


def _best(sums: list[float], moves: Iterable[tuple[Load, float, int]], margin: float) -> Move | None:
    """The move after which the slowest stages are fastest, if that is worth it."""
    best: tuple[list[float], Move] | None = None
    for load, speed, target in moves:
        after = _moved(sums, [(load.stage, target, speed)])
        if _is_better(after, sorted(sums), margin) and (best is None or after > best[0]):
            best = after, Move(load.peer, load.stage, target)
    return best[1] if best else None


def _best_swap(sums: list[float], free: list[tuple[Load, float]], pairs: set[frozenset[int]]) -> Move | None:
    """Of the two peers whose change of places helps most, the faster goes first: its stage has others meanwhile."""
    best: tuple[list[float], Move] | None = None
    for first, second, speed, other in _pairs_of(free, pairs):
        after = _moved(sums, [(first.stage, second.stage, speed), (second.stage, first.stage, other)])
        if _is_better(after, sorted(sums), HYSTERESIS) and (best is None or after > best[0]):
            best = after, Move(first.peer, first.stage, second.stage)
    return best[1] if best else None


def _pairs_of(free: list[tuple[Load, float]], pairs: set[frozenset[int]]) -> Iterator[tuple[Load, Load, float, float]]:
    """The faster one first."""
    for first, speed in free:
        for second, other in free:
            if speed > other and first.stage != second.stage and frozenset((first.stage, second.stage)) not in pairs:
                yield first, second, speed, other


def _moved(sums: list[float], moves: list[tuple[int, int, float]]) -> list[float]:
    """The rates of the stages afterwards, the slowest first."""
    after = list(sums)
    for source, target, speed in moves:
        after[source] -= speed
        after[target] += speed
    return sorted(after)


def _is_better(after: list[float], before: list[float], margin: float) -> bool:
    """Whether the slowest stage of those that change is faster by so much."""
    for new, old in zip(after, before, strict=True):
        if abs(new - old) > 1e-9 * max(new, old):
            return new > margin * old
    return False
