"""What the benchmark of DADAO compares: one problem, one list of events, and all methods on the way to its optimum."""

import numpy as np
import pytest
from dadao import PEERS, PENALTY, Regression, compare, events, graphs

from protocols.gossip.spectrum import Connectivity


def test_the_optimum_of_the_regression_is_where_its_gradients_cancel() -> None:
    regression = Regression.drawn(0)
    gradients = [regression.gradient(peer, regression.optimum) for peer in range(PEERS)]
    assert np.linalg.norm(np.mean(gradients, axis=0)) < 1e-12
    assert min(map(np.linalg.norm, gradients)) > 1e-2, "the peers' own functions have other optima"


def test_the_smoothness_bounds_what_gradients_do() -> None:
    regression, random = Regression.drawn(1), np.random.default_rng(0)
    for peer in range(PEERS):
        first, second = random.standard_normal((2, 10))
        change = np.linalg.norm(regression.gradient(peer, first) - regression.gradient(peer, second))
        assert PENALTY <= change / np.linalg.norm(first - second) <= regression.smoothness


@pytest.mark.parametrize("name", graphs())
def test_graphs_are_connected_and_exchanges_as_frequent_as_asked(name: str) -> None:
    links = graphs()[name]
    once = Connectivity.of(PEERS, links, 1 / len(links))
    assert 0 < once.chi_2 <= once.chi_1 < 1e4, "one that is not connected has no bound"
    drawn = events(links, rate=3 * PEERS, units=200.0, seed=0)
    exchanges = sum(event.other is not None for event in drawn)
    assert exchanges / len(drawn) == pytest.approx(0.75, abs=0.02)
    assert drawn[-1].moment == pytest.approx(200.0, rel=0.05)


def test_all_methods_come_closer_to_the_optimum() -> None:
    run = compare("complete", graphs()["complete"], units=60.0, seed=0)
    for name, curve in run["curves"].items():
        exchanges, errors = zip(*curve, strict=True)
        assert errors[-1] < 0.6 * errors[0], name
        assert list(exchanges) == sorted(exchanges)
