"""DADAO beside plain gossip, at the same gradients and exchanges: logistic regression of peers whose data differ.

    python benchmarks/dadao.py                                    # a table
    python benchmarks/dadao.py --json > runs.json
    python benchmarks/dadao_plot.py runs.json docs/dadao.svg

The setting of the paper's experiments (Nabli & Oyallon 2023, section 5): each peer has a data set of its own, gradients
are of all of it, gradients and exchanges come at independent random times, a gradient of each peer on average in a unit
of time. All methods are given the same events. Exchanges are as frequent as DADAO's theory asks for.

Plain gossip takes a gradient step, and two that meet take their mean; accelerated gossip has a companion beside
(`protocols.gossip.momentum`). Of several step sizes, constant and decreasing, each has the one that is best at the end.
"""

import argparse
import itertools
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocols.gossip.dadao import Dadao, Problem
from protocols.gossip.momentum import Companion
from protocols.gossip.spectrum import Connectivity

Array = NDArray[np.float64]
Links = list[tuple[int, int]]
PEERS, DIMENSIONS, SAMPLES = 16, 10, 64
PENALTY = 0.02
"""Of the squared length of a model, halved: the functions' convexity."""
STEPS = (1.0, 0.3, 0.1, 0.03)
"""Of plain gossip, by 1 / L."""
HALVING_UNITS = (float("inf"), 30.0)
"""In how many units of time a step size falls to half, as 1 / t does."""
GOALS = (1e-1, 1e-2, 1e-3)
NEWTON_STEPS = 25


def graphs() -> dict[str, Links]:
    side = int(PEERS**0.5)
    across = [(peer, peer + 1) for peer in range(PEERS) if (peer + 1) % side]
    return {
        "line": [(peer, peer + 1) for peer in range(PEERS - 1)],
        "ring": [(peer, (peer + 1) % PEERS) for peer in range(PEERS)],
        "grid": across + [(peer, peer + side) for peer in range(PEERS - side)],
        "complete": list(itertools.combinations(range(PEERS), 2)),
    }


@dataclass(frozen=True)
class Regression:
    """Logistic regression with a penalty; each peer's points lie about two centres of its own."""

    points: Array
    """Peers × samples × dimensions, each with its label's sign."""

    @classmethod
    def drawn(cls, seed: int) -> "Regression":
        random = np.random.default_rng(seed)
        signs = random.choice([-1.0, 1.0], (PEERS, SAMPLES, 1))
        centres = random.standard_normal((PEERS, 1, DIMENSIONS))
        return cls(signs * (signs * centres + random.standard_normal((PEERS, SAMPLES, DIMENSIONS))))

    def gradient(self, peer: int, model: Array) -> Array:
        points = self.points[peer]
        slopes = -0.5 * (1 - np.tanh(points @ model / 2))
        return points.T @ slopes / len(points) + PENALTY * model

    @cached_property
    def smoothness(self) -> float:
        return PENALTY + max(np.linalg.norm(points, 2) ** 2 / (4 * len(points)) for points in self.points)

    @cached_property
    def optimum(self) -> Array:
        """By Newton's method."""
        points, model = self.points.reshape(-1, DIMENSIONS), np.zeros(DIMENSIONS)
        for _ in range(NEWTON_STEPS):
            chance = (1 + np.tanh(points @ model / 2)) / 2
            curvature = (points.T * (chance * (1 - chance))) @ points / len(points) + PENALTY * np.eye(DIMENSIONS)
            slope = np.mean([self.gradient(peer, model) for peer in range(PEERS)], axis=0)
            model = model - np.linalg.solve(curvature, slope)
        return model


@dataclass(frozen=True)
class Event:
    moment: float
    peer: int
    other: int | None
    """With whom it has an exchange; None: it takes a gradient."""


def events(links: Links, rate: float, units: float, seed: int) -> list[Event]:
    """`rate`: of exchanges, all together, in a unit of time."""
    random = np.random.default_rng(seed)
    count = int((PEERS + rate) * units)
    moments = np.cumsum(random.exponential(1 / (PEERS + rate), count))
    exchanges = random.random(count) < rate / (PEERS + rate)
    peers, chosen = random.integers(PEERS, size=count), random.integers(len(links), size=count)
    return [
        Event(moment, *links[link]) if exchange else Event(moment, peer, None)
        for moment, exchange, peer, link in zip(moments, exchanges, peers, chosen, strict=True)
    ]


class Method(ABC):
    """All peers' models under one method."""

    @abstractmethod
    def take_gradient(self, event: Event) -> None: ...
    @abstractmethod
    def exchange(self, event: Event, other: int) -> None: ...
    @abstractmethod
    def models(self) -> Array: ...


class AllDadao(Method):
    def __init__(self, regression: Regression, chi_1: float) -> None:
        self._regression = regression
        problem = Problem(PENALTY, regression.smoothness, chi_1)
        self._peers = [Dadao(np.zeros(DIMENSIONS), problem) for _ in range(PEERS)]

    def take_gradient(self, event: Event) -> None:
        peer = self._peers[event.peer]
        peer.advance(event.moment)
        peer.step(self._regression.gradient(event.peer, peer.model))

    def exchange(self, event: Event, other: int) -> None:
        first, second = self._peers[event.peer], self._peers[other]
        first.advance(event.moment)
        second.advance(event.moment)
        ours, theirs = first.message, second.message
        first.mix(theirs)
        second.mix(ours)

    def models(self) -> Array:
        return np.array([peer.model for peer in self._peers])


class PlainGossip(Method):
    def __init__(
        self, regression: Regression, step: float, halving_units: float, accelerated: Connectivity | None
    ) -> None:
        """`accelerated`: with a companion, by the connectivity at one exchange of a peer in a unit of time."""
        self._regression, self._step, self._halving = regression, step / regression.smoothness, halving_units
        self._connectivity = accelerated
        self._models = np.zeros((PEERS, DIMENSIONS))
        self._companions = [Companion(DIMENSIONS) for _ in range(PEERS)]

    def take_gradient(self, event: Event) -> None:
        step = self._step / (1 + event.moment / self._halving)
        self._models[event.peer] -= step * self._regression.gradient(event.peer, self._models[event.peer])

    def exchange(self, event: Event, other: int) -> None:
        shift = (self._models[other] - self._models[event.peer]) / 2
        self._shift(event.peer, shift)
        self._shift(other, -shift)

    def _shift(self, peer: int, shift: Array) -> None:
        if self._connectivity is None:
            self._models[peer] += shift
        else:
            self._models[peer] += self._companions[peer].push(shift.astype(np.float32), self._connectivity)

    def models(self) -> Array:
        return self._models


def play(method: Method, happening: Sequence[Event], optimum: Array, every: int) -> list[tuple[int, float]]:
    """Exchanges so far, and the root mean square distance of the models to the optimum, by that at the start."""
    exchanges, curve = 0, [(0, 1.0)]
    for number, event in enumerate(happening, 1):
        if event.other is None:
            method.take_gradient(event)
        else:
            method.exchange(event, event.other)
            exchanges += 1
        if number % every == 0:
            distance = np.sqrt(np.mean(np.sum(np.square(method.models() - optimum), axis=1)))
            curve.append((exchanges, float(distance / np.linalg.norm(optimum))))
    return curve


def compare(name: str, links: Links, units: float, seed: int) -> dict[str, Any]:
    """The curves of all methods on one graph."""
    regression = Regression.drawn(seed)
    once = Connectivity.of(PEERS, links, 1 / len(links))
    rate = float(np.sqrt(2 * once.chi_1 * once.chi_2))
    happening = events(links, rate, units, seed + 1)
    by_peer = Connectivity.of(PEERS, links, PEERS / (2 * len(links)))
    every = len(happening) // 200

    def best(accelerated: Connectivity | None) -> list[tuple[int, float]]:
        curves = [
            play(PlainGossip(regression, step, halving, accelerated), happening, regression.optimum, every)
            for step, halving in itertools.product(STEPS, HALVING_UNITS)
        ]
        return min(curves, key=lambda curve: np.nan_to_num(curve[-1][1], nan=np.inf))

    curves = {
        "DADAO": play(AllDadao(regression, once.chi_1 / rate), happening, regression.optimum, every),
        "gossip": best(None),
        "accelerated gossip": best(by_peer),
    }
    return {
        "graph": name,
        "condition": regression.smoothness / PENALTY,
        "chi": [once.chi_1, once.chi_2],
        "exchanges_per_gradient": rate / PEERS,
        "units": units,
        "curves": curves,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--units", type=float, default=1000.0, help="of time: gradients of each peer")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--graphs", type=lambda text: text.split(","), default=list(graphs()))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    runs = [compare(name, graphs()[name], options.units, options.seed) for name in options.graphs]
    print(json.dumps(runs) if options.json else "\n".join(show(run) for run in runs))


def show(run: dict[str, Any]) -> str:
    lines = [
        f"{run['graph']}: {run['exchanges_per_gradient']:.1f} exchanges for a gradient, L/μ {run['condition']:.0f}; "
        f"exchanges of all {PEERS} peers until the models are that close to the optimum"
    ]
    for name, curve in run["curves"].items():
        reached = [next((str(exchanges) for exchanges, error in curve if error <= goal), "never") for goal in GOALS]
        figures = "  ".join(f"{goal:.0e}: {at:>7}" for goal, at in zip(GOALS, reached, strict=True))
        lines.append(f"  {name:18} {figures}  in the end {curve[-1][1]:.1e}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
