"""Committees that everybody finds alike, however many do not answer."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.gossip.committee import Aggregation, Sampling
from protocols.identity import PeerId
from protocols.round.order import order

MEMBERS = [PeerId(f"member {number}") for number in range(50)]


def sample(
    alive: set[PeerId], wanted: int, number: int = 3, spare: int = 0, members: list[PeerId] = MEMBERS
) -> list[PeerId]:
    """As it is found by asking; the answers of a turn come in another order than they were asked for."""
    sampling = Sampling("run", number, members, wanted, spare)
    asked: list[PeerId] = []
    while turn := sampling.ask():
        asked += turn
        for peer in reversed(turn):
            sampling.hear(peer, answers=peer in alive)
    assert sampling.complete
    assert len(set(asked)) == len(asked), "nobody is asked twice"
    return sampling.sample


@given(
    alive=st.sets(st.sampled_from(MEMBERS)),
    wanted=st.integers(1, 20),
    number=st.integers(0, 100),
    spare=st.integers(0, 5),
)
def test_the_sample_is_the_first_in_the_rounds_order_who_answer(
    alive: set[PeerId], wanted: int, number: int, spare: int
) -> None:
    expected = [peer for peer in order("run", number, MEMBERS) if peer in alive][:wanted]
    assert sample(alive, wanted, number, spare) == expected


def test_eight_of_ten_who_do_not_answer_make_a_committee_of_the_others() -> None:
    alive = set(MEMBERS[::5])
    assert set(sample(alive, 6)) <= alive
    assert len(sample(alive, 6)) == 6


def test_rosters_that_differ_by_a_member_give_samples_that_differ_by_one_at_most() -> None:
    for number in range(20):
        one = sample(set(MEMBERS), 8, number)
        other = sample(set(MEMBERS), 8, number, members=MEMBERS[1:])
        assert len(set(one) - set(other)) <= 1


def test_everybody_is_in_a_committee_as_often_as_anybody() -> None:
    counted = dict.fromkeys(MEMBERS, 0)
    for number in range(2000):
        for peer in sample(set(MEMBERS), 5, number):
            counted[peer] += 1
    assert max(counted.values()) < 1.35 * 200
    assert min(counted.values()) > 0.65 * 200


def test_an_aggregator_goes_on_with_a_fraction_of_the_models_and_takes_one_of_each_trainer() -> None:
    aggregation = Aggregation(trainers=4, fraction=0.7)
    ones = np.ones(3, np.float32)
    aggregation.add(MEMBERS[0], ones, 10)
    aggregation.add(MEMBERS[0], 100 * ones, 10)
    aggregation.add(MEMBERS[1], 2 * ones, 10)
    assert not aggregation.complete
    aggregation.add(MEMBERS[2], 5 * ones, 20)
    assert aggregation.complete
    aggregation.add(MEMBERS[3], 1000 * ones, 10)
    assert aggregation.mean() == pytest.approx([3.25] * 3)
    assert list(aggregation.trainers) == sorted(MEMBERS[:3])
