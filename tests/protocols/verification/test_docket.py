"""Whose charges have taken least time is heard first."""

from protocols.identity import PeerId
from protocols.verification.docket import Docket

SLOW, OTHER = PeerId("slow"), PeerId("other")


def test_who_has_taken_time_comes_after_those_who_have_not() -> None:
    docket: Docket[int] = Docket(most=8, of_one=4)
    assert [docket.put(SLOW, number) for number in range(5)] == [True] * 4 + [False]
    assert docket.take() == 0
    assert not docket.put(SLOW, 4), "the one that is looked into counts"
    assert docket.put(OTHER, 9)
    docket.done(20.0)
    assert [docket.take(), len(docket)] == [9, 3]
    docket.done(1.0)
    assert docket.take() == 1


def test_a_full_docket_takes_charges_of_who_has_taken_less_time() -> None:
    docket: Docket[int] = Docket(most=2, of_one=4)
    docket.put(SLOW, 0)
    docket.take()
    docket.done(20.0)
    assert docket.put(SLOW, 1)
    assert docket.put(SLOW, 2)
    assert docket.put(OTHER, 9)
    assert not docket.put(SLOW, 3)
    assert docket.take() == 9
