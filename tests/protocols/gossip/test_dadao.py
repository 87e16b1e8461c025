"""DADAO on problems whose optimum is known: it gets there, however the peers' functions differ, and fast."""

import itertools

import numpy as np
import pytest

from protocols.gossip.dadao import X_TILDE, Y_TILDE, Z_TILDE, Dadao, Problem, X, Y, Z
from protocols.gossip.spectrum import Connectivity

PEERS, DIMENSIONS = 8, 5
RING = [(peer, (peer + 1) % PEERS) for peer in range(PEERS)]
CONVEXITY, SMOOTHNESS = 0.05, 1.0


def quadratics(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Curvatures (n × d) between μ and L, the peers' own optima (n × d), and that of the sum (d)."""
    random = np.random.default_rng(seed)
    curvatures = random.uniform(CONVEXITY, SMOOTHNESS, (PEERS, DIMENSIONS))
    curvatures[:, 0], curvatures[:, 1] = CONVEXITY, SMOOTHNESS
    optima = 3 * random.standard_normal((PEERS, DIMENSIONS))
    return curvatures, optima, np.sum(curvatures * optima, axis=0) / np.sum(curvatures, axis=0)


def on_a_ring() -> tuple[Problem, float]:
    """The problem, and the rate of all exchanges together."""
    once = Connectivity.of(PEERS, RING, 1 / len(RING))
    rate = np.sqrt(2 * once.chi_1 * once.chi_2)
    return Problem(CONVEXITY, SMOOTHNESS, once.chi_1 / rate), rate


def play(seconds: float, seed: int = 1) -> list[Dadao]:
    random = np.random.default_rng(seed)
    curvatures, optima, _ = quadratics()
    problem, rate = on_a_ring()
    peers = [Dadao(np.zeros(DIMENSIONS), problem) for _ in range(PEERS)]
    moment = 0.0
    while (moment := moment + random.exponential(1 / (PEERS + rate))) < seconds:
        if random.random() < PEERS / (PEERS + rate):
            number = random.integers(PEERS)
            peers[number].advance(moment)
            peers[number].step(curvatures[number] * (peers[number].model - optima[number]))
        else:
            first, second = (peers[number] for number in RING[random.integers(len(RING))])
            first.advance(moment)
            second.advance(moment)
            ours, theirs = first.message, second.message
            first.mix(theirs)
            second.mix(ours)
    for peer in peers:
        peer.advance(seconds)
    return peers


def test_peers_whose_functions_differ_come_to_the_optimum_of_the_sum_at_an_accelerated_rate() -> None:
    *_, optimum = quadratics()
    problem, _ = on_a_ring()
    begin = np.linalg.norm(optimum)
    for time in (200, 400, 800):
        error = max(np.linalg.norm(peer.model - optimum) for peer in play(time))
        assert (error / begin) ** 2 < np.exp(-problem.root / 8 * time)


def test_connectivity_is_what_is_known_of_rings_and_complete_graphs() -> None:
    ring, known = Connectivity.of(PEERS, RING, 0.5), Connectivity.of_ring(PEERS)
    assert (ring.chi_1, ring.chi_2) == pytest.approx((known.chi_1, known.chi_2))
    everybody = Connectivity.of(PEERS, list(itertools.combinations(range(PEERS), 2)), 1 / (PEERS - 1))
    assert (everybody.chi_1, everybody.chi_2) == pytest.approx((1 - 1 / PEERS, 1 - 1 / PEERS))
    assert everybody.acceleration == pytest.approx(1)


def test_the_optimum_stays_where_it_is() -> None:
    curvatures, optima, optimum = quadratics()
    problem, _ = on_a_ring()
    peers = [Dadao(optimum, problem) for _ in range(PEERS)]
    for number, peer in enumerate(peers):
        dual = curvatures[number] * (optimum - optima[number]) - problem.nu * optimum
        peer._variables[[Y, Y_TILDE]] = dual
        peer._variables[[Z, Z_TILDE]] = -problem.nu * optimum - dual
    for peer, other in itertools.permutations(peers, 2):
        peer.advance(7.0)
        peer.mix(other.message)
        peer.step(curvatures[peers.index(peer)] * (peer.model - optima[peers.index(peer)]))
    assert np.allclose([peer.model for peer in peers], optimum)


def test_variables_move_towards_their_companions_and_the_dual_towards_balance() -> None:
    """The differential equation of the paper, looked at over a short time."""
    problem, moment = Problem(0.1, 2.0, 3.0), 1e-6
    peer = Dadao(np.zeros(4), problem)
    peer._variables = before = np.random.default_rng(0).standard_normal((6, 4))
    peer.advance(moment)
    x, x_tilde, y, y_tilde, z, z_tilde = before
    root = np.sqrt(0.05 / 2.0)
    speed = np.empty_like(before)
    speed[X], speed[X_TILDE] = root / 8 * (x_tilde - x), root / 8 * (x - x_tilde)
    speed[Y], speed[Y_TILDE] = root / 4 * (y_tilde - y), -(0.05 * x_tilde + y + z) / (2 * root)
    speed[Z], speed[Z_TILDE] = root / 4 * (z_tilde - z), root / 8 * (z - z_tilde)
    assert np.allclose((peer._variables - before) / moment, speed, rtol=1e-3)


def test_it_does_not_matter_in_how_many_pieces_time_passes() -> None:
    problem = Problem(0.1, 2.0, 3.0)
    at_once, in_pieces = (Dadao(np.ones(3), problem) for _ in range(2))
    for peer in (at_once, in_pieces):
        peer.step(np.array([1.0, -2.0, 0.5]))
    at_once.advance(5.0)
    for moment in (0.1, 2.0, 2.0, 5.0):
        in_pieces.advance(moment)
    assert np.allclose(at_once._variables, in_pieces._variables)


def test_what_one_side_of_an_exchange_loses_the_other_gains() -> None:
    problem, _ = on_a_ring()
    random = np.random.default_rng(3)
    first, second = Dadao(random.standard_normal(4), problem), Dadao(random.standard_normal(4), problem)
    for peer in (first, second):
        peer.step(random.standard_normal(4))
        peer.advance(1.0)
    before = first._variables + second._variables
    ours, theirs = first.message, second.message
    first.mix(theirs)
    second.mix(ours)
    assert np.allclose(first._variables + second._variables, before)
    assert not np.allclose(first.message, ours)
