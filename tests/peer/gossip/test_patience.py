"""How long an exchange may take, and how seldom those are asked who keep us waiting."""

from itertools import pairwise

import pytest

from peer.gossip.patience import (
    FIRST_SECONDS,
    FORGIVING_EXCHANGES,
    LEAST_SECONDS,
    LONGEST_PAUSE_SECONDS,
    MAX_PEERS,
    Patience,
)
from protocols.identity import PeerId

PEER, OTHER = PeerId("peer"), PeerId("other")


def pause_after_failure(patience: Patience, now: float, seconds: float) -> float:
    patience.failed(PEER, now, seconds)
    paused = 0.0
    while patience.leaves_alone(PEER, now + paused):
        paused += 0.5
    return paused


def test_limits_follow_what_exchanges_usually_take() -> None:
    patience = Patience()
    assert patience.limit_seconds == FIRST_SECONDS
    for _ in range(5):
        patience.succeeded(PEER, 0.01)
    assert patience.limit_seconds == LEAST_SECONDS
    for _ in range(20):
        patience.succeeded(PEER, 30.0)
    assert patience.limit_seconds > 100
    assert patience.silence_seconds <= 10


def test_the_limit_is_never_longer_than_at_first_whatever_others_make_usual() -> None:
    patience = Patience()
    for _ in range(40):
        patience.succeeded(PEER, 0.9 * patience.limit_seconds)
    assert patience.limit_seconds == FIRST_SECONDS


def test_a_caller_that_is_far_slower_than_usual_is_not_taken_again_for_a_while() -> None:
    patience = Patience()
    for _ in range(5):
        patience.succeeded(OTHER, 0.1)
    patience.was_called(OTHER, 100.0, 0.2)
    patience.was_called(PEER, 100.0, 5.0)
    assert patience.may_call(OTHER, 100.0)
    assert [patience.may_call(PEER, 100.0 + waited) for waited in (0.0, 19.9, 20.1)] == [False, False, True]
    assert not patience.leaves_alone(PEER, 100.0), "we may call it"
    for number in range(MAX_PEERS + 5):
        patience.was_called(PeerId(str(number)), 100.0, 5.0)
    assert len(patience._rest_until) == MAX_PEERS


def test_each_failure_costs_a_longer_pause_than_it_took_up_to_the_longest() -> None:
    patience, now, pauses = Patience(), 0.0, []
    for _ in range(10):
        pauses.append(pause_after_failure(patience, now, 3.0))
        now += pauses[-1] + 3
    assert pauses[0] >= 6
    assert all(later >= min(2 * earlier, LONGEST_PAUSE_SECONDS) for earlier, later in pairwise(pauses))
    assert not patience.leaves_alone(OTHER, now)


@pytest.mark.parametrize("good", [0, FORGIVING_EXCHANGES - 1, FORGIVING_EXCHANGES])
def test_good_exchanges_make_up_for_failures_slowly(good: int) -> None:
    patience = Patience()
    first = pause_after_failure(patience, 0.0, 1.0)
    for _ in range(good):
        patience.succeeded(PEER, 1.0)
    again = pause_after_failure(patience, 1000.0, 1.0)
    assert again == (first if good == FORGIVING_EXCHANGES else 2 * first)


def test_accounts_are_bounded() -> None:
    patience = Patience()
    for number in range(MAX_PEERS + 10):
        patience.failed(PeerId(str(number)), 0.0, 1.0)
    assert len(patience._accounts) == MAX_PEERS
