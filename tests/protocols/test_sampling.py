import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.identity import Identity
from protocols.sampling import sample_indices

RUN = "tests-" + "a" * 26
PEERS = [Identity.from_seed(bytes([number]) * 32).peer_id for number in range(1, 9)]


def samples(*, epoch=0, peer=PEERS[0], start=0, count=100, population=1000, run=RUN):
    return sample_indices(run, epoch, peer, start=start, count=count, population=population)


@given(population=st.integers(1, 3000), epoch=st.integers(0, 10**6))
def test_one_pass_takes_every_sample_once(population, epoch):
    taken = samples(epoch=epoch, count=population, population=population)
    assert sorted(taken) == list(range(population))


@given(start=st.integers(0, 5000), count=st.integers(0, 500), population=st.integers(50, 1000))
def test_any_microbatch_can_be_recomputed_alone(start, count, population):
    whole = samples(count=start + count, population=population)
    assert (samples(start=start, count=count, population=population) == whole[start:]).all()
    assert whole.dtype == np.int64


def test_a_second_pass_takes_another_order():
    taken = samples(count=2000)
    assert sorted(taken[1000:]) == list(range(1000))
    assert (taken[:1000] != taken[1000:]).mean() > 0.98


def test_large_populations_are_drawn_without_listing_them():
    taken = samples(start=2**45, count=1000, population=2**47 - 1)
    assert len(set(taken)) == 1000
    assert 0 <= min(taken) < max(taken) < 2**47 - 1
    assert np.mean(taken) == pytest.approx(2**46, rel=0.1)


def test_run_epoch_and_peer_each_change_the_sequence():
    base = samples()
    for other in (samples(run="other-" + "a" * 26), samples(epoch=1), samples(peer=PEERS[1])):
        assert (base == other).mean() < 0.05


@pytest.mark.parametrize("population", [7, 100, 333])
def test_every_sample_is_as_likely(population):
    """χ² of the first samples of many epochs: within 6 standard deviations of what chance gives."""
    counts = np.zeros(population)
    each = min(5, population)
    for epoch in range(20 * population):
        counts += np.bincount(samples(epoch=epoch, count=each, population=population), minlength=population)
    expected = counts.sum() / population
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    assert chi_squared < population + 6 * np.sqrt(2 * population)


def test_neighbouring_positions_are_independent():
    pairs = np.stack([samples(epoch=epoch, count=2, population=16) for epoch in range(6000)])
    counts = np.bincount(pairs[:, 0] * 16 + pairs[:, 1], minlength=256).reshape(16, 16)
    assert not counts.diagonal().any()
    counts = counts[~np.eye(16, dtype=bool)]
    expected = 6000 / 240
    assert ((counts - expected) ** 2 / expected).sum() < 240 + 6 * np.sqrt(480)


def test_two_peers_share_as_many_samples_as_chance_gives():
    shared = [len(np.intersect1d(samples(epoch=epoch), samples(epoch=epoch, peer=PEERS[1]))) for epoch in range(300)]
    assert np.mean(shared) == pytest.approx(100 * 100 / 1000, rel=0.1)
    assert max(shared) < 30


def test_the_sequence_is_fixed():
    """Whoever recomputes another peer's microbatch, on any machine and version, gets these."""
    assert samples(count=6).tolist() == [485, 981, 162, 44, 552, 215]


def test_a_swarm_trains_on_as_many_different_samples_as_chance_gives():
    """Four peers with 160 of 7,175 samples each, as in `demo`."""
    distinct = [
        len(np.unique([samples(epoch=epoch, peer=peer, count=160, population=7175) for peer in PEERS[:4]]))
        for epoch in range(200)
    ]
    assert np.mean(distinct) == pytest.approx(7175 * (1 - (1 - 160 / 7175) ** 4), rel=0.003)


@pytest.mark.parametrize("wrong", [{"population": 0}, {"start": -1}, {"count": -1}])
def test_impossible_requests_are_errors(wrong):
    with pytest.raises(ValueError, match="population"):
        samples(**wrong)
