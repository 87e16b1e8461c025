"""What neighbours' models do to one's own, honest ones and others."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from protocols.gossip.mixing import (
    Neighbourhood,
    apply_shift,
    by_rule,
    clipped,
    length,
    neighbourhood_of,
    pairwise,
    share_of_other,
)
from protocols.gossip.topologies import RandomRegular, draw_graph
from protocols.identity import PeerId
from protocols.manifest import Averaging, Data, Gossip, Manifest, Model, Sgd
from protocols.rules import rule
from protocols.vectors import Vector

ELEMENTS = 200
LARGEST = np.finfo(np.float32).max


def models(count: int, seed: int = 0) -> list[Vector]:
    return list(np.random.default_rng(seed).standard_normal((count, ELEMENTS)).astype(np.float32))


@given(own=st.integers(0, 2**40), other=st.integers(0, 2**40), degree=st.integers(1, 8))
def test_what_one_side_of_an_exchange_loses_the_other_gains(own: int, other: int, degree: int) -> None:
    first, second = models(2)
    of_first, of_second = share_of_other(own, other, degree), share_of_other(other, own, degree)
    assert of_first + of_second == pytest.approx(2 / (degree + 1))
    weights = (own, other) if own + other else (1, 1)
    before = np.average([first, second], axis=0, weights=weights)
    after = [first + pairwise(first, second, of_first)[0], second + pairwise(second, first, of_second)[0]]
    assert np.allclose(np.average(after, axis=0, weights=weights), before, atol=1e-5)


def test_two_with_one_exchange_meet_in_the_mean_weighted_by_their_samples() -> None:
    first, second = models(2)
    shift, distance = pairwise(first, second, share_of_other(30, 10, 1))
    assert distance == pytest.approx(np.linalg.norm(second - first), rel=1e-5)
    met = first + shift
    assert np.allclose(met, 0.75 * first + 0.25 * second, atol=1e-6)
    assert np.allclose(met, second + pairwise(second, first, share_of_other(10, 30, 1))[0], atol=1e-6)


def test_two_whose_layers_keep_their_variance_meet_too() -> None:
    first, second = models(2)
    layers = [slice(0, 150), slice(150, ELEMENTS)]
    met = first + pairwise(first, second, 0.5, layers)[0]
    assert np.allclose(met, second + pairwise(second, first, 0.5, layers)[0], atol=1e-5)
    for layer in layers:
        assert met[layer].var() == pytest.approx((first[layer].var() + second[layer].var()) / 2, rel=1e-3)


def test_steps_taken_during_an_exchange_are_kept() -> None:
    own, other = models(2)
    step = models(1, seed=5)[0]
    shift, _ = pairwise(own, other, 0.5)
    early, late = own.copy(), own.copy()
    apply_shift(early, shift)
    early += step
    late += step
    apply_shift(late, shift)
    assert np.allclose(early, late, atol=1e-6)


@given(values=st.lists(st.sampled_from([-LARGEST, -1.0, 0.0, 1e-45, 1.0, LARGEST]), min_size=3, max_size=3))
def test_models_stay_finite_whatever_finite_numbers_come(values: list[float]) -> None:
    own, other, third = (np.full(4, value, np.float32) for value in values)
    for shift in (
        pairwise(own, other, 0.5)[0],
        pairwise(own, other, 0.5, [slice(0, 4)])[0],
        clipped(1)(own, [other, third]),
        by_rule(rule("median", 1))(own, [other, third]),
        by_rule(rule("monna", 1))(own, [other, third]),
    ):
        assert np.isfinite(shift).all()
        model = own.copy()
        apply_shift(model, shift)
        assert np.isfinite(model).all()


ROBUST = {
    "clipped": clipped(1),
    "monna": by_rule(rule("monna", 1)),
    "trimmed": by_rule(rule("trimmed_mean", 1)),
    "median": by_rule(rule("median", 1)),
    "nnm | trimmed_mean": by_rule(rule("nnm | trimmed_mean", 1)),
}


def play(mix: Neighbourhood, attack: Vector | None, epochs: int = 20) -> tuple[list[Vector], list[Vector]]:
    """12 peers of whom two send `attack` instead of their models (honest ones for None): the honest at first, and at
    the end. Everybody has four neighbours, and one of the two among them at most, or the epoch passes without it."""
    peers = [PeerId(f"peer {number}") for number in range(12)]
    held = dict(zip(peers, models(12, seed=3), strict=True))
    liars = peers[:2] if attack is not None else []
    honest = [peer for peer in peers if peer not in liars]
    first = [held[peer] for peer in honest]
    for epoch in range(epochs):
        graph = draw_graph(RandomRegular(4), "run", epoch, frozenset(peers))
        shifts = {}
        for peer in honest:
            neighbours = graph.neighbours[peer]
            if sum(neighbour in liars for neighbour in neighbours) > 1:
                continue
            sent = [attack if neighbour in liars else held[neighbour] for neighbour in neighbours]
            shifts[peer] = mix(held[peer], [model for model in sent if model is not None])
        held |= {peer: held[peer] + shift for peer, shift in shifts.items()}
    return first, [held[peer] for peer in honest]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", ROBUST)
@pytest.mark.parametrize("size", [3.0, 1e6, 1e38])
def test_robust_mixing_brings_the_honest_together_near_their_mean_whatever_neighbours_send(
    name: str, size: float
) -> None:
    first, last = play(ROBUST[name], np.full(ELEMENTS, size, np.float32))
    mean = np.mean(first, axis=0, dtype=np.float64)
    spread = np.linalg.norm(np.array(first, np.float64) - mean, axis=1).mean()
    now = np.array(last, np.float64)
    assert np.linalg.norm(now - now.mean(axis=0), axis=1).mean() < 0.1 * spread
    assert np.linalg.norm(now.mean(axis=0) - mean) < spread


def test_the_mean_is_moved_anywhere_by_the_same_neighbours() -> None:
    first, last = play(by_rule(rule("mean")), np.full(ELEMENTS, 1e6, np.float32))
    mean = np.mean(first, axis=0, dtype=np.float64)
    assert np.linalg.norm(np.mean(last, axis=0, dtype=np.float64) - mean) > 1e6


def test_clipping_without_liars_is_the_mean_of_the_neighbourhood() -> None:
    own, *others = models(4)
    assert np.allclose(own + clipped(0)(own, others), np.mean([own, *others], axis=0), atol=1e-6)


def test_a_clipped_neighbour_pulls_no_further_than_the_radius() -> None:
    own = np.zeros(ELEMENTS, np.float32)
    near = [np.eye(ELEMENTS, dtype=np.float32)[row] for row in range(3)]
    far = np.full(ELEMENTS, 1e30, np.float32)
    without = clipped(1)(own, [*near, own])
    pulled = clipped(1)(own, [*near, far])
    assert length(pulled - without) <= np.sqrt(3) / 5 + 1e-6


def manifest(**fields: object) -> Manifest:
    averaging = fields.pop("averaging", Averaging())
    return Manifest(
        name="gossip",
        model=Model(architecture="mlp"),
        data=Data(dataset="digits"),
        training=Gossip(optimizer=Sgd(learning_rate=0.1), **fields),  # type: ignore[arg-type]
        epochs=1,
        averaging=averaging,  # type: ignore[arg-type]
    )


def test_a_manifest_names_how_neighbourhoods_are_mixed() -> None:
    assert neighbourhood_of(manifest()) is None
    robust = Averaging(rule="trimmed_mean", byzantine=1, quorum=3)
    mix = neighbourhood_of(manifest(mixing="rule", topology="regular", degree=4, averaging=robust))
    own, *others = models(5)
    assert mix is not None
    assert np.allclose(own + mix(own, others), np.sort([own, *others], axis=0)[1:-1].mean(axis=0), atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"degree": 3}, "degree"),
        ({"accelerated": True}, "accelerated is for topology = 'ring'"),
        ({"mixing": "rule"}, "mixing"),
        ({"averaging": Averaging(rule="median")}, "mixing"),
        ({"averaging": Averaging(byzantine=1, quorum=3)}, "withstands nobody"),
        ({"mixing": "clipped", "averaging": Averaging(byzantine=1, quorum=3)}, "needs at least 2"),
        (
            {
                "mixing": "rule",
                "topology": "regular",
                "degree": 3,
                "averaging": Averaging(rule="median", byzantine=2, quorum=5),
            },
            "needs at least 4",
        ),
    ],
)
def test_a_manifest_whose_neighbourhoods_cannot_do_what_it_says_is_refused(fields: dict[str, object], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        manifest(**fields)
