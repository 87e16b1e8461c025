"""A peer is suspended for bad input, not for what happens to honest ones."""

from dht.strikes import MAX_PEERS, MAX_WEIGHT, SUSPENSION_SECONDS, WINDOW_SECONDS, Strikes
from protocols.identity import PeerId
from protocols.rejection import Reason

PEER = PeerId("peer")


def charges_until_suspended(reason: str, seconds_apart: float = 0.0) -> int | None:
    strikes = Strikes()
    for number in range(1, MAX_WEIGHT + 2):
        if strikes.charge(PEER, reason, number * seconds_apart):
            return number
    return None


def test_bad_input_suspends_soon() -> None:
    assert charges_until_suspended(Reason.BAD_SIGNATURE) == 33
    assert charges_until_suspended("some reason of a later version") == 33


def test_what_honest_peers_send_late_weighs_little() -> None:
    assert charges_until_suspended(Reason.STALE) == MAX_WEIGHT + 1


def test_busy_and_not_having_something_is_nobodys_fault() -> None:
    assert charges_until_suspended(Reason.BUSY) is None
    assert charges_until_suspended(Reason.ABSENT) is None


def test_old_charges_are_forgotten() -> None:
    assert charges_until_suspended(Reason.MALFORMED, seconds_apart=WINDOW_SECONDS / 30) is None


def test_suspension_ends_and_begins_anew() -> None:
    strikes = Strikes()
    while not strikes.charge(PEER, Reason.MALFORMED, 100.0):
        assert not strikes.suspended(PEER, 100.0)
    assert strikes.suspended(PEER, 100.0)
    assert not strikes.suspended(PeerId("another"), 100.0)
    assert strikes.suspended(PEER, 99.9 + SUSPENSION_SECONDS)
    assert not strikes.suspended(PEER, 100.0 + SUSPENSION_SECONDS)
    assert not strikes.charge(PEER, Reason.MALFORMED, 100.0 + SUSPENSION_SECONDS)


def test_memory_is_bounded_and_keeps_the_latest() -> None:
    strikes = Strikes()
    while not strikes.charge(PEER, Reason.MALFORMED, 0.0):
        pass
    for number in range(MAX_PEERS - 1):
        strikes.charge(PeerId(str(number)), Reason.MALFORMED, 0.0)
    assert strikes.suspended(PEER, 0.0)
    strikes.charge(PeerId("one more"), Reason.MALFORMED, 0.0)
    assert not strikes.suspended(PEER, 0.0)
