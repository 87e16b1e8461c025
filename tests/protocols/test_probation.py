"""Who is a newcomer, and how many of them there is room for."""

import pytest

from protocols.identity import PeerId
from protocols.probation import MAX_PEERS, Probation, room_for
from tests.protocols.round.simulation import PEERS

FIRST, SECOND, THIRD, STRANGER = PEERS[:4]
EPOCHS = 5


def after(rounds: int, group: list[PeerId], probation: Probation | None = None, since: int = 0) -> Probation:
    probation = probation or Probation(EPOCHS)
    for epoch in range(since, since + rounds):
        probation.count(epoch, group)
    return probation


def test_without_a_probation_nobody_is_a_newcomer() -> None:
    probation = Probation(0)
    for epoch in range(20):
        probation.count(epoch, [FIRST])
        assert probation.seniors(epoch, [FIRST, STRANGER]) is None


def test_there_are_no_newcomers_while_a_run_is_founded() -> None:
    probation = after(EPOCHS - 1, [FIRST, SECOND])
    assert probation.seniors(EPOCHS - 1, [FIRST, SECOND, THIRD]) is None


def test_who_takes_part_in_the_first_epochs_is_a_founder() -> None:
    probation = after(EPOCHS - 1, [FIRST, SECOND])
    probation.count(EPOCHS - 1, [FIRST, THIRD])
    assert probation.seniors(EPOCHS, [FIRST, THIRD]) == {FIRST, SECOND, THIRD}


def test_who_comes_later_has_to_serve() -> None:
    probation = after(10, [FIRST, SECOND])
    for epoch in range(10, 10 + EPOCHS):
        assert probation.seniors(epoch, [FIRST, SECOND, THIRD]) == {FIRST, SECOND}
        probation.count(epoch, [FIRST, SECOND, THIRD])
    assert probation.seniors(10 + EPOCHS, [FIRST, SECOND, THIRD]) == {FIRST, SECOND, THIRD}


def test_who_follows_and_is_in_no_group_does_not_serve() -> None:
    probation = after(100, [FIRST, SECOND])
    assert probation.seniors(100, [FIRST, SECOND]) == {FIRST, SECOND}


def test_a_senior_that_was_away_comes_back_as_one() -> None:
    probation = after(10, [FIRST, SECOND, THIRD])
    after(100, [FIRST, SECOND], probation, since=10)
    assert THIRD in (probation.seniors(110, [FIRST, SECOND]) or ())


def test_where_all_seniors_are_gone_those_who_have_served_longest_take_their_place() -> None:
    probation = after(10, [FIRST])
    after(2, [FIRST, SECOND], probation, since=10)
    after(1, [SECOND, STRANGER], probation, since=12)
    assert probation.seniors(13, [SECOND, STRANGER]) == {FIRST, SECOND}


def test_a_swarm_that_comes_back_from_snapshots_is_founded_anew() -> None:
    probation = Probation(EPOCHS)
    probation.resume(50, ())
    assert probation.seniors(50, []) is None
    after(EPOCHS, [FIRST, SECOND], probation, since=50)
    assert probation.seniors(50 + EPOCHS, [FIRST, SECOND]) == {FIRST, SECOND}


def test_a_joiner_takes_those_for_seniors_of_whom_it_is_told() -> None:
    probation = Probation(EPOCHS)
    probation.resume(50, {FIRST, SECOND})
    assert probation.seniors(50, [FIRST, SECOND]) == {FIRST, SECOND}
    probation.count(50, [FIRST, SECOND, THIRD])
    assert probation.seniors(51, [FIRST, SECOND, THIRD]) == {FIRST, SECOND}


def test_a_flood_of_identities_takes_no_more_memory_and_pushes_out_nobody_who_works() -> None:
    probation = after(EPOCHS, [FIRST])
    for number in range(2 * MAX_PEERS):
        probation.count(EPOCHS + number, [FIRST, PeerId(f"sybil {number}")])
    assert len(probation._served) == MAX_PEERS
    assert probation.seniors(10**6, [FIRST]) == {FIRST}


@pytest.mark.parametrize(
    ("share", "seniors", "quorum", "limit", "room"),
    [
        (0.25, 3, 1, 64, 1),
        (0.25, 6, 1, 64, 2),
        (0.25, 1, 1, 64, 1),
        (0.0, 50, 1, 64, 1),
        (0.5, 7, 1, 64, 7),
        (0.1, 9, 1, 64, 1),
        (0.25, 1000, 1, 64, 16),
        (0.25, 2, 6, 64, 4),
    ],
)
def test_room_for_newcomers(share: float, seniors: int, quorum: int, limit: int, room: int) -> None:
    assert room_for(share, seniors, quorum, limit) == room
