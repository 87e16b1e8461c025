"""Who is too slow for a part: who keeps most of the others waiting, not who is a little late with each chunk."""

import pytest

from protocols.round.deadlines import Timing
from protocols.round.pace import Paces

TIMING = Timing(slack=0.5, slower=1.4, uneven=2.0, far_slower=5.0)


def reading(*numbers: int) -> Paces:
    """A part with these senders, all read from time 0 on."""
    paces = Paces(TIMING)
    for number in numbers:
        paces.read(number, 0.0)
    return paces


def test_who_keeps_the_others_waiting_for_too_long_is_too_slow() -> None:
    paces = reading(1, 2, 3)
    paces.rest(1, 5.0)
    paces.rest(2, 5.0)
    assert paces.slack([3], 5.0)[3] == pytest.approx(0.5 + 0.4 * 5.0)
    assert paces.slack([3], 7.4)[3] > 0
    assert paces.slack([3], 7.6)[3] < 0


def test_who_is_slower_while_the_others_are_busy_themselves_is_not_too_slow() -> None:
    """It may be that they take the larger share of a line."""
    paces = reading(1, 2, 3)
    paces.rest(1, 20.0)
    left = paces.slack([2, 3], 60.0)
    assert min(left.values()) > TIMING.slack


def test_it_adds_up_however_short_each_wait_is() -> None:
    paces = reading(1, 2, 3)
    now = 0.0
    for _ in range(100):  # a tenth of a second of work of them all, then the others wait for as long
        now += 0.1
        paces.rest(1, now)
        paces.rest(2, now)
        now += 0.1
        paces.read(1, now)
        paces.read(2, now)
    assert paces.senders[3].awaited > 9.9
    assert paces.slack([3], now)[3] < 0
    assert min(paces.slack([1, 2], now).values()) > 0


def test_everybody_has_the_slack_at_first() -> None:
    paces = reading(1, 2, 3)
    paces.rest(1, 0.01)
    paces.rest(2, 0.01)
    assert paces.slack([3], 0.4)[3] > 0
    assert paces.slack([3], 0.6)[3] < 0


def test_half_of_the_senders_do_not_make_the_others_slow() -> None:
    paces = reading(1, 2)
    paces.rest(1, 0.1)
    assert paces.slack([2], 1000.0)[2] > 0
    paces = reading(1, 2, 3, 4)
    paces.rest(1, 0.1)
    paces.rest(2, 0.1)
    assert min(paces.slack([3, 4], 1000.0).values()) > 0


def test_who_is_not_counted_on_any_more_does_not_wait_either() -> None:
    paces = reading(1, 2, 3, 4)
    paces.rest(1, 0.1)
    paces.rest(4, 0.1)
    paces.forget(4)
    assert paces.slack([2, 3], 1000.0) == {2: paces.slack([2], 1000.0)[2], 3: paces.slack([3], 1000.0)[3]}
    assert min(paces.slack([2, 3], 1000.0).values()) > 0


def test_time_in_which_a_sender_is_ahead_and_not_read_is_not_its_own() -> None:
    paces = reading(1)
    paces.rest(1, 1.0)
    paces.rest(1, 9.0)
    assert paces.senders[1].busy == 1.0
    paces.read(1, 50.0)
    paces.rest(1, 52.0)
    assert paces.senders[1].busy == 3.0


def test_who_has_opened_no_stream_yet_has_no_pace() -> None:
    assert reading(1, 2).slack([7], 10.0) == {}
    assert Paces(TIMING).slack([7], 10.0) == {}


def test_who_is_somewhat_slower_is_waited_for_longer_than_who_is_far_slower() -> None:
    """Of a line that it shares with its other streams it may have had the smaller part for a while."""
    uneven, far = reading(1, 2, 3), reading(1, 2, 3)
    for paces, delivered in ((uneven, 7), (far, 1)):
        for number, chunks in ((1, 10), (2, 10), (3, delivered)):
            for _ in range(chunks):
                paces.take(number)
        paces.rest(1, 5.0)
        paces.rest(2, 5.0)
    assert uneven.slack([3], 6.0)[3] == pytest.approx(0.5 + 1.0 * 5.0 - 1.0)
    assert far.slack([3], 6.0)[3] == pytest.approx(0.5 + 0.4 * 5.0 - 1.0)
    assert uneven.slack([3], 10.0)[3] == pytest.approx(0.5 + 1.0 * 5.0 - 5.0)
    assert uneven.slack([3], 10.6)[3] < 0


def test_who_has_delivered_nothing_is_far_slower() -> None:
    paces = reading(1, 2, 3)
    for number in (1, 2):
        paces.take(number)
        paces.rest(number, 5.0)
    assert paces.slack([3], 5.0)[3] == pytest.approx(0.5 + 0.4 * 5.0)
