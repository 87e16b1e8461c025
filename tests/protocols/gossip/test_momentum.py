"""A companion model brings the models of a ring together sooner, and changes nothing else."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.gossip.momentum import Companion
from protocols.gossip.spectrum import Connectivity, Matrix, mixing_matrix
from protocols.gossip.topologies import Ring, draw_graph
from protocols.identity import PeerId

ELEMENTS = 50


def ring(count: int) -> Matrix:
    roster = [PeerId(f"peer {number}") for number in range(count)]
    return mixing_matrix(draw_graph(Ring(), "run", 0, frozenset(roster)), Ring().degree, roster)


def consensus_error(models: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.sum(np.square(models - models.mean(axis=0)), axis=1))))


def mix(models: np.ndarray, companions: list[Companion], epochs: int) -> None:
    """As members do: both exchanges of an epoch begin with the same models, and each is one push."""
    weights = ring(len(models)) - np.diag(np.diag(ring(len(models))))
    for _ in range(epochs):
        before = models.copy()
        for number, companion in enumerate(companions):
            for other in np.flatnonzero(weights[number]):
                shift = (weights[number, other] * (before[other] - before[number])).astype(np.float32)
                models[number] += companion.push(shift, Connectivity.of_ring(len(models)))


@pytest.mark.parametrize(("count", "epochs", "times"), [(8, 12, 4), (16, 40, 20), (32, 120, 100)])
def test_a_ring_comes_together_much_sooner_the_more_so_the_longer_it_is(count: int, epochs: int, times: float) -> None:
    models = np.random.default_rng(0).standard_normal((count, ELEMENTS)).astype(np.float32)
    plain = np.linalg.matrix_power(ring(count), epochs) @ models
    mix(models, [Companion(ELEMENTS) for _ in range(count)], epochs)
    assert times * consensus_error(models) < consensus_error(plain)


def test_the_mean_of_models_and_companions_stays() -> None:
    models = np.random.default_rng(1).standard_normal((8, ELEMENTS)).astype(np.float32)
    companions = [Companion(ELEMENTS) for _ in models]
    mean = models.mean(axis=0)
    mix(models, companions, 5)
    assert np.allclose(np.mean([2 * m + c.ahead for m, c in zip(models, companions, strict=True)], axis=0) / 2, mean)
    mix(models, companions, 200)
    assert np.allclose(models, mean, atol=1e-3), "and that is where all come to"


@given(chi=st.floats(0.1, 1e6))
def test_where_all_are_linked_with_all_nothing_is_accelerated(chi: float) -> None:
    companion, shift = Companion(3), np.array([1, -2, 0.5], np.float32)
    for _ in range(3):
        assert np.array_equal(companion.push(shift, Connectivity(chi, chi)), shift)


def test_without_further_exchanges_a_companion_has_no_effect() -> None:
    companion, shift = Companion(3), np.array([1, -2, 0.5], np.float32)
    connectivity = Connectivity.of_ring(16)
    assert np.all(np.abs(companion.push(shift, connectivity)) > np.abs(shift))
    companion.forget()
    assert not companion.push(np.zeros(3, np.float32), connectivity).any()


def test_models_stay_finite_whatever_a_neighbour_sends() -> None:
    companion, largest = Companion(2), np.finfo(np.float32).max
    for shift in ([largest, -largest], [largest, largest], [-largest, 0.0]):
        assert np.isfinite(companion.push(np.array(shift, np.float32), Connectivity.of_ring(100))).all()
    assert np.isfinite(companion.ahead).all()
