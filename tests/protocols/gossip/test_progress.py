"""How epochs get about, and how much each peer counts."""

from hypothesis import given
from hypothesis import strategies as st

from protocols.gossip.progress import WINDOW_EPOCHS, SampleRate, epoch_of_most

epochs = st.lists(st.integers(0, 1000), max_size=30)


@given(others=epochs)
def test_more_than_half_of_the_others_have_come_to_the_epoch_of_most(others: list[int]) -> None:
    epoch = epoch_of_most(others)
    if others:
        assert 2 * sum(other >= epoch for other in others) > len(others)
        assert 2 * sum(other >= epoch + 1 for other in others) <= len(others)
    else:
        assert epoch == 0


@given(honest=st.lists(st.integers(0, 1000), min_size=1, max_size=20), liars=st.integers(0, 19))
def test_a_minority_that_claims_any_epoch_moves_nobody_beyond_the_honest(honest: list[int], liars: int) -> None:
    lies = [10**9] * min(liars, len(honest) - 1)
    assert epoch_of_most([*honest, *lies]) <= max(honest)


def test_a_peer_counts_by_the_samples_that_it_adds_in_an_epoch_of_the_swarm() -> None:
    steady, slow = SampleRate(), SampleRate()
    for epoch in range(1, 101):
        steady.add(epoch, 32)
        if epoch % 10 == 0:
            slow.add(epoch, 32)
    assert steady.at(100) == 32
    assert 3 <= slow.at(100) <= 6


def test_a_newcomer_counts_for_nothing_until_it_has_trained() -> None:
    rate = SampleRate()
    assert rate.at(500) == 0
    rate.add(501, 32)
    assert rate.at(501) == 32


def test_who_has_stopped_training_counts_less_and_less() -> None:
    rate = SampleRate()
    for epoch in range(1, 20):
        rate.add(epoch, 10)
    assert rate.at(19) == 10
    assert 0 < rate.at(19 + WINDOW_EPOCHS // 2) < 10
    assert rate.at(20 + WINDOW_EPOCHS) == 0
