"""What faults cost, and how it fades."""

from collections.abc import Iterable
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from protocols.identity import PeerId
from protocols.suspension import FORGIVING_EPOCHS, LONGEST_EPOCHS, MAX_PEERS, Fault, Suspensions
from tests.protocols.round.simulation import PEERS

PEER, OTHER = PEERS[:2]


def play(faults: Iterable[Fault | None], suspensions: Suspensions | None = None, since: int = 0) -> Suspensions:
    """Round after round in which PEER is in the group, at such a fault."""
    suspensions = suspensions or Suspensions()
    for epoch, fault in enumerate(faults, since):
        suspensions.settle(epoch, [PEER, OTHER], {PEER: fault} if fault else {})
    return suspensions


def spoil(epochs: int) -> list[int]:
    """The epochs that a member spoils which withholds whatever it owns."""
    suspensions, spoilt = Suspensions(), []
    for epoch in range(epochs):
        out = PEER in suspensions.left(epoch)
        owns = not out and PEER not in suspensions.not_owning(epoch)
        spoilt += [epoch] if owns else []
        suspensions.settle(epoch, [OTHER] if out else [PEER, OTHER], {PEER: Fault.WITHHELD} if owns else {})
    return spoilt


def test_one_fault_costs_nothing() -> None:
    suspensions = play([Fault.ABSENT])
    assert not suspensions.left(1)
    assert not suspensions.not_owning(1)


def test_a_second_one_at_once_costs_one_epoch_and_no_part_for_another() -> None:
    suspensions = play([Fault.WITHHELD, Fault.WITHHELD])
    assert suspensions.left(2) == {PEER: 1}
    assert not suspensions.left(3)
    assert [PEER in suspensions.not_owning(epoch) for epoch in (2, 3, 4)] == [True, True, False]


def test_good_work_makes_up_for_a_fault() -> None:
    assert not play([Fault.ABSENT, None, None, Fault.ABSENT, None, None, Fault.WITHHELD]).left(7)


def test_who_spoils_every_other_round_is_suspended() -> None:
    assert play([Fault.ABSENT, None, Fault.ABSENT]).left(3) == {PEER: 1}


def test_a_member_that_always_sends_slowly_is_never_suspended() -> None:
    suspensions = Suspensions()
    for epoch in range(1000):
        assert not suspensions.settle(epoch, [PEER], {PEER: Fault.SLOW})


def test_who_withholds_always_does_so_more_and_more_seldom() -> None:
    spoilt = spoil(1000)
    gaps = [later - earlier for earlier, later in pairwise(spoilt)]
    assert gaps[:4] == [1, 3, 5, 9]
    assert gaps == sorted(gaps)
    assert max(gaps) <= 2 * LONGEST_EPOCHS + 1
    assert len(spoilt) < 15


def test_a_suspension_is_never_longer_than_the_longest() -> None:
    assert len(spoil(10_000)) > 10_000 / (2 * LONGEST_EPOCHS + 2)


def test_good_work_makes_the_next_suspension_short_again() -> None:
    suspensions = play([Fault.WITHHELD, Fault.WITHHELD, None, None, Fault.WITHHELD])
    assert suspensions.left(5) == {PEER: 2}
    play([None] * 3 * FORGIVING_EPOCHS, suspensions, since=9)
    since = 9 + 3 * FORGIVING_EPOCHS
    play([Fault.WITHHELD, Fault.WITHHELD], suspensions, since)
    assert suspensions.left(since + 2) == {PEER: 1}


def test_who_has_made_up_for_everything_is_forgotten() -> None:
    suspensions = play([Fault.ABSENT, *[None] * FORGIVING_EPOCHS])
    assert not suspensions._accounts


def test_in_a_history_that_is_not_as_far_nobody_is_suspended_for_longer() -> None:
    suspensions = play([Fault.ABSENT, Fault.ABSENT], since=1000)
    assert suspensions.left(1002) == {PEER: 1}
    assert not suspensions.left(3)
    assert not suspensions.not_owning(3)


def test_accounts_are_bounded() -> None:
    suspensions = Suspensions()
    for number in range(2 * MAX_PEERS):
        suspensions.settle(number, [], {PeerId(f"peer {number}"): Fault.ABSENT})
    assert len(suspensions._accounts) == MAX_PEERS


@given(st.lists(st.sampled_from([None, *Fault]), max_size=300))
def test_no_behaviour_costs_more_than_the_longest_suspension(faults: list[Fault | None]) -> None:
    suspensions = play(faults)
    assert not suspensions.left(len(faults) + LONGEST_EPOCHS)
    assert not suspensions.not_owning(len(faults) + 2 * LONGEST_EPOCHS)
