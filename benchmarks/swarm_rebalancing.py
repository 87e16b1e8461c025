"""How near a pipeline on preemptible nodes stays to the best division of its peers, over a day of virtual time.

    python benchmarks/swarm_rebalancing.py
    python benchmarks/swarm_rebalancing.py --json --hours 2 --seeds 1

Nodes come and go as spot machines do: sessions are exponential, newcomers come at random moments, on average as many
are there as at the start. Speeds are uneven (log-normal). Throughput is that of the slowest stage. Policies decide by
what peers said some seconds ago, and a mover does nothing while it fetches its new stage. Ours is the daemon's own
(`protocols.swarm.rebalance`). The oracle always has the best division, at once and for nothing. The paper (SWARM,
Ryabinin et al. 2023) has the same comparison, of traces of spot machines.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from statistics import mean

from protocols.identity import PeerId
from protocols.swarm.rebalance import Load, Move, best_division, neediest_stage, next_move, rates

DECIDE_SECONDS = 2.0
RECORD_SECONDS = 2.0
"""How old what is known of the others is."""
FETCH_SECONDS = 8.0
"""A mover's, for the state of its new stage."""

Decide = Callable[[list[Load], int, Random], Move | None]


@dataclass(frozen=True)
class World:
    stages: int = 4
    peers: int = 32
    session_seconds: float = 3600.0
    """On average, from a node's start to its end."""
    hours: float = 24.0


@dataclass
class Node:
    load: Load
    ends_at: float
    moved_at: float = float("-inf")
    serves_from: float = 0.0
    """While it fetches a stage it serves none."""


@dataclass(frozen=True)
class Policy:
    name: str
    joins: Callable[[list[Load], int, Random], int]
    decide: Decide | None
    every_seconds: float = DECIDE_SECONDS


def at_random(_loads: list[Load], stages: int, random: Random) -> int:
    return random.randrange(stages)


def at_the_neediest(loads: list[Load], stages: int, _random: Random) -> int:
    return neediest_stage(loads, stages)


def random_move(loads: list[Load], stages: int, random: Random) -> Move | None:
    able = [load for load in loads if sum(other.stage == load.stage for other in loads) > 1]
    if not able:
        return None
    mover = random.choice(able)
    return Move(mover.peer, mover.stage, random.randrange(stages))


def ours(loads: list[Load], stages: int, _random: Random) -> Move | None:
    return next_move(loads, stages)


POLICIES = (
    Policy("none, newcomers at random", at_random, None),
    Policy("none, newcomers where needed", at_the_neediest, None),
    Policy("random moves every 60 s", at_random, random_move, 60.0),
    Policy("ours every 300 s", at_the_neediest, ours, 300.0),
    Policy("ours every 60 s", at_the_neediest, ours, 60.0),
    Policy("ours (every 2 s)", at_the_neediest, ours),
)


class Day:
    """One policy in one world; the same seed has the same nodes come and go whatever the policy."""

    def __init__(self, world: World, policy: Policy, seed: int) -> None:
        self._world, self._policy = world, policy
        self._churn, self._random = Random(seed), Random(seed + 1)
        self._nodes: dict[PeerId, Node] = {}
        self._heard: list[tuple[float, list[Load]]] = []
        self._started = 0
        self.moves = 0
        for _ in range(world.peers):
            self._join(0.0)
        self._next_join = self._until_next_join(0.0)

    def run(self) -> list[tuple[float, float]]:
        """Throughput and the oracle's, at each decision."""
        measured, now, decided = [], 0.0, 0.0
        while now < self._world.hours * 3600:
            now += DECIDE_SECONDS
            self._churn_until(now)
            loads = [node.load for node in self._nodes.values()]
            self._heard.append((now, loads))
            while len(self._heard) > 1 and self._heard[1][0] <= now - RECORD_SECONDS:
                self._heard.pop(0)
            if self._policy.decide is not None and now - decided >= self._policy.every_seconds:
                decided = now
                self._decide(now)
            serving = [node.load for node in self._nodes.values() if node.serves_from <= now]
            measured.append((min(rates(serving, self._world.stages)), self._best(loads)))
        return measured

    def _best(self, loads: list[Load]) -> float:
        speeds = tuple(load.rate for load in loads)
        sums = [0.0] * self._world.stages
        for stage, speed in zip(best_division(speeds, self._world.stages), speeds, strict=True):
            sums[stage] += speed
        return min(sums)

    def _decide(self, now: float) -> None:
        assert self._policy.decide is not None
        known = [replace(load, since=now - self._moved_at(load.peer)) for load in self._heard[0][1]]
        known = [replace(load, moving_to=load.stage if self._fetches(load.peer, now) else None) for load in known]
        move = self._policy.decide(known, self._world.stages, self._random)
        node = self._nodes.get(move.peer) if move is not None else None
        if move is not None and node is not None and node.load.stage == move.source != move.target:
            self.moves += 1
            node.load = replace(node.load, stage=move.target)
            node.moved_at, node.serves_from = now, now + FETCH_SECONDS

    def _moved_at(self, peer: PeerId) -> float:
        node = self._nodes.get(peer)
        return node.moved_at if node else float("-inf")

    def _fetches(self, peer: PeerId, now: float) -> bool:
        node = self._nodes.get(peer)
        return node is not None and node.serves_from > now

    def _churn_until(self, now: float) -> None:
        for peer in [peer for peer, node in self._nodes.items() if node.ends_at <= now]:
            del self._nodes[peer]
        while self._next_join <= now:
            self._join(self._next_join)
            self._next_join = self._until_next_join(self._next_join)

    def _until_next_join(self, now: float) -> float:
        return now + self._churn.expovariate(self._world.peers / self._world.session_seconds)

    def _join(self, now: float) -> None:
        self._started += 1
        peer = PeerId(f"node {self._started}")
        speed = self._churn.lognormvariate(0.0, 0.4)
        ends_at = now + self._churn.expovariate(1 / self._world.session_seconds)
        stage = self._policy.joins([node.load for node in self._nodes.values()], self._world.stages, self._random)
        self._nodes[peer] = Node(Load(peer, stage, speed), ends_at, now, now + (FETCH_SECONDS if now else 0.0))


def recovery(loads: list[Load], stages: int) -> tuple[float, float, float]:
    """Seconds until the throughput is within 5 % of the best, the throughput before, and that afterwards."""
    now, before = 0.0, min(rates(loads, stages))
    serves_from: dict[PeerId, float] = {}
    speeds = tuple(load.rate for load in loads)
    division = best_division(speeds, stages)
    best = min(sum(s for s, place in zip(speeds, division, strict=True) if place == stage) for stage in range(stages))
    moved_at: dict[PeerId, float] = {}
    while now < 600:
        serving = [load for load in loads if serves_from.get(load.peer, 0.0) <= now]
        if (reached := min(rates(serving, stages))) >= 0.95 * best:
            return now, before, reached
        known = [
            replace(
                load,
                moving_to=load.stage if serves_from.get(load.peer, 0.0) > now else None,
                since=now - moved_at.get(load.peer, float("-inf")),
            )
            for load in loads
        ]
        if (move := next_move(known, stages)) is not None:
            loads = [replace(load, stage=move.target) if load.peer == move.peer else load for load in loads]
            serves_from[move.peer], moved_at[move.peer] = now + FETCH_SECONDS, now
        now += DECIDE_SECONDS
    return now, before, reached


def summarise(policy: Policy, world: World, seeds: int) -> dict[str, object]:
    shares, first, last, moves = [], [], [], []
    for seed in range(seeds):
        day = Day(world, policy, seed)
        measured = day.run()
        hour = int(3600 / DECIDE_SECONDS)
        for part, into in ((measured, shares), (measured[:hour], first), (measured[-hour:], last)):
            into.append(sum(got for got, _ in part) / sum(best for _, best in part))
        moves.append(day.moves)
    return {
        "policy": policy.name,
        "of_the_oracle": mean(shares),
        "first_hour": mean(first),
        "last_hour": mean(last),
        "moves_an_hour": mean(moves) / world.hours,
    }


def recoveries() -> list[dict[str, object]]:
    def peers(*counts: int) -> list[Load]:
        return [Load(PeerId(f"{s}-{n}"), s, 1.0) for s, count in enumerate(counts) for n in range(count)]

    cases = {
        "8 peers, all in stages 0 and 1 of 4": (peers(4, 4, 0, 0), 4),
        "16 peers, half of a stage of 4 gone": (peers(4, 4, 4, 2), 4),
        "32 peers, half of a stage of 4 gone": (peers(8, 8, 8, 4), 4),
    }
    found = []
    for name, (loads, stages) in cases.items():
        seconds, before, after = recovery(loads, stages)
        found.append({"case": name, "seconds": seconds, "before": before, "after": after})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--peers", type=int, default=32)
    parser.add_argument("--stages", type=int, default=4)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    world = World(options.stages, options.peers, hours=options.hours)
    for policy in POLICIES:
        figures = summarise(policy, world, options.seeds)
        if options.json:
            print(json.dumps(figures), flush=True)
        else:
            parts = (figures[name] for name in ("of_the_oracle", "first_hour", "last_hour"))
            shares = "  ".join(f"{100 * float(part):5.1f} %" for part in parts)  # type: ignore[arg-type]
            print(f"{policy.name:30} {shares}  {figures['moves_an_hour']:6.1f} moves an hour", flush=True)
    for case in recoveries():
        print(json.dumps(case) if options.json else "{case}: {seconds:.0f} s, {before:g} → {after:g}".format(**case))


if __name__ == "__main__":
    sys.exit(main())
