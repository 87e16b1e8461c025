"""Adaptive rebalancing: which peer moves to which stage (SWARM, Ryabinin et al. 2023, section 3.2).

A pipeline is as fast as its slowest stage, and a stage as the sum of its peers. Every peer looks at what all say of
themselves in their signed records, and comes to the same move; only the one who is to move does. The paper moves a peer
of the stage with the least queue to that with the greatest, which may be the wrong one, and ends wherever no single
move helps. Here a good division of all peers is found first; then one after the other goes where it is in that, as
long as the whole becomes faster by it. A stage without peers is repaired at once, and no stage is left empty.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from statistics import median

from protocols.identity import PeerId

HYSTERESIS = 1.05
"""Nobody moves unless all moves together make the slowest stage so much faster."""
COOL_DOWN_SECONDS = 10.0
"""Who has just moved stays for so long, until the others' records tell of it."""
FEW_PEERS = 16
"""Of so many, pairs are exchanged, too; among more single ones are as good."""
NEARLY = 1.02
"""A division that is only so much better is not worth more moves."""
ROUNDING = 1e-9
FASTEST = 8.0
"""So many times the median rate is believed, or who claims more would draw the others away from its stage."""

Staying = tuple[int | None, ...]
"""Of each peer the stage where it stays; None: it goes where it is needed."""


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
    stays: bool = False
    """It goes nowhere: it was told to serve this stage, or does not go though it is its turn."""

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
    """Who is to move where, now; None where nothing is gained by it.

    One at a time: while somebody is on its way, others wait, unless a stage is empty.
    """
    ordered = sorted((load for load in loads if load.place < stages), key=lambda load: load.peer)
    speeds, places = _believed(ordered), [load.place for load in ordered]
    staying = tuple(load.place if load.stays else None for load in ordered)
    free = [load.moving_to is None and not load.stays and places.count(load.stage) > 1 for load in ordered]
    empty = next((stage for stage in range(stages) if stage not in places), None)
    if empty is not None:
        return _first(ordered, speeds, places, stages, lambda number: empty if free[number] else None)
    if any(load.moving_to is not None for load in ordered):
        return None
    division = best_division(tuple(speeds), stages, staying)
    reachable = min(_sums(division, speeds, stages))
    if reachable <= HYSTERESIS * min(_sums(places, speeds, stages)):
        return None
    rested = [able and load.since >= COOL_DOWN_SECONDS for load, able in zip(ordered, free, strict=True)]
    if (step := _step_of_a_climb(places, speeds, stages, staying, reachable / NEARLY)) is not None:
        number, stage = step
        return Move(ordered[number].peer, places[number], stage) if rested[number] else None
    plan = _relabelled(division, places, speeds, stages, staying)
    return _first(ordered, speeds, places, stages, lambda number: plan[number] if rested[number] else None)


def _step_of_a_climb(
    places: list[int], speeds: Sequence[float], stages: int, staying: Staying, goal: float
) -> tuple[int, int] | None:
    """The first of single moves, each of which helps, if they lead to the goal: few are enough then."""
    places, sums = list(places), _sums(places, speeds, stages)
    first: tuple[int, int] | None = None
    while (exchange := _best_exchange(places, speeds, sums, staying, singly=True)) is not None:
        [(number, stage)] = exchange
        first = first or (number, stage)
        _carry_out(exchange, places, speeds, sums)
    return first if min(sums) >= goal else None


@lru_cache(maxsize=256)
def best_division(speeds: tuple[float, ...], stages: int, staying: Staying | None = None) -> tuple[int, ...]:
    """The stage of each peer such that the slowest stage is nearly as fast as it can be.

    `staying`: of each peer the stage where it stays, if it does.

    Fastest first, each to the stage that has least so far (Graham 1969; for the least sum: Deuermeyer, Friesen &
    Langston 1982); then peers are exchanged as long as the slowest stages become faster.
    """
    staying = staying or (None,) * len(speeds)
    places = [stage or 0 for stage in staying]
    sums = [0.0] * stages
    for number in sorted(range(len(speeds)), key=lambda number: (staying[number] is None, -speeds[number])):
        if staying[number] is None:
            places[number] = min(range(stages), key=lambda stage: sums[stage])
        sums[places[number]] += speeds[number]
    while (exchange := _best_exchange(places, speeds, sums, staying)) is not None:
        _carry_out(exchange, places, speeds, sums)
    return tuple(places)


def _carry_out(exchange: list[tuple[int, int]], places: list[int], speeds: Sequence[float], sums: list[float]) -> None:
    for number, stage in exchange:
        sums[places[number]] -= speeds[number]
        sums[stage] += speeds[number]
        places[number] = stage


def _best_exchange(
    places: list[int], speeds: Sequence[float], sums: list[float], staying: Staying, *, singly: bool = False
) -> list[tuple[int, int]] | None:
    """What the slowest stage best exchanges with another one: (peer, its new stage); `singly` it only gets one."""
    slowest = min(range(len(sums)), key=lambda stage: sums[stage])
    at_once = 2 if len(places) <= FEW_PEERS and not singly else 1
    best: tuple[list[float], list[tuple[int, int]]] | None = None
    for back in ((), *(() if singly else _groups(places, staying, slowest, at_once))):  # the fewer move the better
        loss = sum(speeds[number] for number in back)
        for stage in range(len(sums)):
            for given in _groups(places, staying, stage, at_once) if stage != slowest else ():
                change = sum(speeds[number] for number in given) - loss
                after = [*sums]
                after[slowest], after[stage] = sums[slowest] + change, sums[stage] - change
                if change > 0 and _is_better(sorted(after), best[0] if best else sorted(sums)):
                    best = sorted(after), [(n, slowest) for n in given] + [(n, stage) for n in back]
    return best[1] if best else None


def _groups(places: list[int], staying: Staying, stage: int, most: int) -> Iterator[tuple[int, ...]]:
    """One peer of a stage that could go, or so many together."""
    members = [number for number, place in enumerate(places) if place == stage and staying[number] is None]
    for size in range(1, most + 1):
        yield from combinations(members, size)


def _relabelled(
    plan: Sequence[int], places: list[int], speeds: Sequence[float], stages: int, staying: Staying
) -> list[int]:
    """The same division, its parts named such that most stay where they are: all stages take as long."""
    common = [[0.0] * stages for _ in range(stages)]
    for part, place, speed in zip(plan, places, speeds, strict=True):
        common[part][place] += speed
    names = {stage: stage for stage in staying if stage is not None}
    for _, part, stage in sorted(
        (-common[part][stage], part, stage) for part in range(stages) for stage in range(stages)
    ):
        if part not in names and stage not in names.values():
            names[part] = stage
    return [names[part] for part in plan]


def _first(
    loads: Sequence[Load],
    speeds: Sequence[float],
    places: list[int],
    stages: int,
    target: Callable[[int], int | None],
) -> Move | None:
    """Of the moves to their `target` that these could make, the one after which the slowest stages are fastest."""
    best: tuple[list[float], Move] | None = None
    for number, load in enumerate(loads):
        to = target(number)
        if to is not None and to != load.place:
            sums = sorted(_sums([*places[:number], to, *places[number + 1 :]], speeds, stages))
            if best is None or _is_better(sums, best[0]):
                best = sums, Move(load.peer, load.place, to)
    return best[1] if best else None


def _sums(places: Sequence[int], speeds: Sequence[float], stages: int) -> list[float]:
    sums = [0.0] * stages
    for place, speed in zip(places, speeds, strict=True):
        sums[place] += speed
    return sums


def _is_better(first: Sequence[float], second: Sequence[float]) -> bool:
    """Whether the slowest stage that differs is faster; both in order. Rounding is no difference."""
    for one, other in zip(first, second, strict=True):
        if abs(one - other) > ROUNDING * max(one, other):
            return one > other
    return False


def _believed(loads: Sequence[Load]) -> list[float]:
    """The rate of each; who does not know its own counts as ordinary."""
    known = [load.rate for load in loads if load.rate > 0]
    ordinary = median(known) if known else 1.0
    return [min(load.rate, FASTEST * ordinary) if load.rate > 0 else ordinary for load in loads]
