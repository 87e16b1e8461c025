"""Graphs that everybody draws alike, and what they do to the distance between models."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.gossip.spectrum import contraction, expected_error, expected_gap, mixing_matrix, ring_gap, spectral_gap
from protocols.gossip.topologies import (
    Exponential,
    RandomPairs,
    RandomRegular,
    Ring,
    Topology,
    _ordered,
    draw_graph,
    links_of,
)
from protocols.identity import PeerId

TOPOLOGIES: list[Topology] = [RandomPairs(), Exponential(), Ring(), RandomRegular(3), RandomRegular(4)]
RUN = "run"
any_topology = pytest.mark.parametrize("topology", TOPOLOGIES, ids=repr)


def roster(count: int) -> frozenset[PeerId]:
    return frozenset(PeerId(f"peer {number}") for number in range(count))


def matrix_of(topology: Topology, count: int, epoch: int) -> np.ndarray:
    graph = draw_graph(topology, RUN, epoch, roster(count))
    return mixing_matrix(graph, topology.degree, sorted(roster(count)))


@given(topology=st.sampled_from(TOPOLOGIES), count=st.integers(0, 40), epoch=st.integers(0, 10_000))
def test_a_graph_links_no_pair_twice_nobody_to_itself_and_nobody_to_more_than_its_degree(
    topology: Topology, count: int, epoch: int
) -> None:
    graph = draw_graph(topology, RUN, epoch, roster(count))
    pairs = [frozenset(link) for link in graph.links]
    assert len(set(pairs)) == len(pairs)
    assert all(len(pair) == 2 for pair in pairs)
    for peer, neighbours in graph.neighbours.items():
        assert peer in roster(count)
        assert len(neighbours) <= topology.degree
        assert all(peer in graph.neighbours[neighbour] for neighbour in neighbours)
    called = sum(len(callees) for callees in graph.callees.values())
    assert called == len(pairs), "each link has one caller"


@given(topology=st.sampled_from(TOPOLOGIES), count=st.integers(1, 40), epoch=st.integers(0, 10_000))
def test_each_knows_its_own_links_without_drawing_those_of_others(topology: Topology, count: int, epoch: int) -> None:
    graph = draw_graph(topology, RUN, epoch, roster(count))
    for peer in roster(count):
        callees, callers = links_of(topology, RUN, epoch, roster(count), peer)
        assert callees == graph.callees.get(peer, ())
        assert (*callees, *callers) == graph.neighbours.get(peer, ())


@given(topology=st.sampled_from(TOPOLOGIES), count=st.integers(1, 40), epoch=st.integers(0, 10_000))
def test_mixing_keeps_the_mean_and_never_overshoots(topology: Topology, count: int, epoch: int) -> None:
    matrix = matrix_of(topology, count, epoch)
    assert np.allclose(matrix, matrix.T)
    assert np.allclose(matrix.sum(axis=1), 1)
    assert (matrix >= -1e-12).all()
    assert np.linalg.eigvalsh(matrix).min() > -1 + 1e-9


@pytest.mark.parametrize("topology", [RandomPairs(), RandomRegular(3)], ids=repr)
def test_graphs_are_drawn_anew_each_epoch_and_from_run_epoch_and_roster_alone(topology: Topology) -> None:
    drawn = [draw_graph(topology, RUN, epoch, roster(16)).links for epoch in range(4)]
    assert len(set(drawn)) == 4
    _ordered.cache_clear()
    shuffled = frozenset(sorted(roster(16), reverse=True))
    assert [draw_graph(topology, RUN, epoch, shuffled).links for epoch in range(4)] == drawn
    assert draw_graph(topology, "another run", 0, roster(16)).links != drawn[0]


@pytest.mark.parametrize("topology", [RandomPairs(), Exponential()], ids=repr)
@pytest.mark.parametrize("count", [2, 16, 64])
def test_in_pairs_everybody_meets_somebody(topology: Topology, count: int) -> None:
    for epoch in range(8):
        assert draw_graph(topology, RUN, epoch, roster(count)).neighbours.keys() == roster(count)


@pytest.mark.parametrize("count", [2, 4, 8, 64, 256])
def test_the_exponential_graph_is_exact_after_log2_n_epochs_for_powers_of_two(count: int) -> None:
    epochs = count.bit_length() - 1
    for first in (0, 1, 5):
        product = np.eye(count)
        for epoch in range(first, first + epochs):
            assert not np.allclose(product, 1 / count)
            product = matrix_of(Exponential(), count, epoch) @ product
        assert np.allclose(product, 1 / count)


@pytest.mark.parametrize("count", [3, 5, 6, 11, 24])
def test_the_exponential_graph_connects_any_number_of_peers(count: int) -> None:
    cycle = (count - 1).bit_length()
    product = np.eye(count)
    for epoch in range(cycle):
        product = matrix_of(Exponential(), count, epoch) @ product
    assert np.linalg.norm(product - 1 / count, 2) < 1


@pytest.mark.parametrize("count", [4, 16, 64])
def test_the_rings_gap_is_what_theory_says_and_shrinks_with_the_square_of_n(count: int) -> None:
    assert spectral_gap(matrix_of(Ring(), count, 0)) == pytest.approx(ring_gap(count))
    assert ring_gap(4 * count) == pytest.approx(ring_gap(count) / 16, rel=0.25)


def test_a_regular_graph_mixes_far_better_than_a_ring() -> None:
    assert spectral_gap(matrix_of(RandomRegular(4), 64, 0)) > 20 * ring_gap(64)


@any_topology
@pytest.mark.parametrize("count", [16, 64])
def test_consensus_error_falls_as_the_spectrum_says(count: int, topology: Topology) -> None:
    epochs, runs = 6, 2560 // count
    squared = np.zeros(epochs + 1)
    for run in range(runs):
        product = np.eye(count)
        for epoch in range(epochs + 1):
            squared[epoch] += contraction(product) / runs  # of independent models
            graph = draw_graph(topology, f"run {run}", epoch, roster(count))
            matrix = mixing_matrix(graph, topology.degree, sorted(roster(count)))
            mixed = matrix @ product
            error, before = np.linalg.norm(mixed - 1 / count, 2), np.linalg.norm(product - 1 / count, 2)
            assert error <= before * (1 - spectral_gap(matrix)) + 1e-9
            product = mixed
    expected = [expected_error(topology, count, epoch) for epoch in range(epochs + 1)]
    assert np.sqrt(np.maximum(squared, 0)) == pytest.approx(expected, rel=0.1, abs=1e-7)


@pytest.mark.parametrize("topology", [Ring(), Exponential()], ids=repr)
@pytest.mark.parametrize("count", [4, 16, 64])
def test_the_gap_of_a_cycles_mean_matrix_is_what_theory_says(topology: Topology, count: int) -> None:
    cycle = (count - 1).bit_length()
    mean = np.mean([matrix_of(topology, count, epoch) for epoch in range(cycle)], axis=0)
    assert spectral_gap(mean) == pytest.approx(expected_gap(topology, count))


@pytest.mark.parametrize("topology", [RandomPairs(), RandomRegular(4), RandomRegular(5)], ids=repr)
@pytest.mark.parametrize("count", [8, 64])
def test_the_gap_of_the_expected_matrix_of_draws_is_what_theory_says(count: int, topology: Topology) -> None:
    """All pairs are drawn alike, so the expected matrix has one eigenvalue beside 1, and its trace says which."""
    mean = np.mean([matrix_of(topology, count, epoch) for epoch in range(3200 // count)], axis=0)
    second = (np.trace(mean) - 1) / (count - 1)
    assert 1 - second == pytest.approx(expected_gap(topology, count), rel=0.01)


@any_topology
def test_one_epoch_shrinks_independent_models_as_its_contraction_says(topology: Topology) -> None:
    matrix = matrix_of(topology, 32, 3)
    models = np.random.default_rng(2).standard_normal((32, 5000))
    models -= models.mean(axis=0)
    shrunk = np.sum(np.square(matrix @ models)) / np.sum(np.square(models))
    assert shrunk == pytest.approx(contraction(matrix), rel=0.05)
