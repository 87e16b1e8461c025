"""The roster knows where its members are, as their newest words say it."""

from typing import Any

from peer.membership import _speaks_first
from peer.roster import LIVE_SECONDS, Roster
from protocols.identity import PeerId
from protocols.signed import Signer
from tests.peer.simulated_swarm import identity
from tests.peer.test_large_rosters import RUN, entry

ME, OTHERS = identity(0).peer_id, [identity(number) for number in range(1, 5)]
SIGNERS = [Signer(other, RUN, 1) for other in OTHERS]
A, B = bytes(32), bytes(31) + b"\x01"


def learn(roster: Roster, number: int, epoch: int, now: float = 0.0, **fields: Any) -> None:
    roster.learn(SIGNERS[number].sign(entry(0.0).model_copy(update=fields), epoch), now, directly=True)


def where(roster: Roster) -> dict[tuple[int, bytes | None], set[PeerId]]:
    return {(place.epoch, place.state_digest): set(peers) for place, peers in roster.places().items()}


def peers(*numbers: int) -> set[PeerId]:
    return {OTHERS[number].peer_id for number in numbers}


def test_members_are_where_their_newest_words_say() -> None:
    roster = Roster(ME)
    for number in range(3):
        learn(roster, number, 1, state_digest=A)
    learn(roster, 2, 2, state_digest=B)
    assert where(roster) == {(1, A): peers(0, 1), (2, B): peers(2)}
    assert set(roster.at(1, A)) == peers(0, 1)


def test_who_is_no_member_any_more_is_nowhere() -> None:
    roster = Roster(ME)
    for number in range(4):
        learn(roster, number, 1, float(number), state_digest=A)
    learn(roster, 0, 1, state_digest=A, departed=True)
    roster.forget(OTHERS[1].peer_id)
    roster.banish(OTHERS[2].peer_id, "for a reason")
    assert where(roster) == {(1, A): peers(3)}
    assert roster.expire(3.1 + LIVE_SECONDS) == [OTHERS[3].peer_id]
    assert where(roster) == {}


def test_who_takes_no_part_in_rounds_is_at_no_epoch_of_theirs() -> None:
    roster = Roster(ME)
    learn(roster, 0, 1, state_digest=A, role="monitor")
    learn(roster, 1, 1, state_digest=A, client_mode=True)
    assert roster.at(1, A) == {OTHERS[1].peer_id: True}


def test_of_two_mates_one_speaks_first_and_everybody_to_about_half() -> None:
    members = [identity(number).peer_id for number in range(60)]
    for one in members:
        others = [other for other in members if other != one]
        assert all(_speaks_first(one, other) != _speaks_first(other, one) for other in others)
        assert 10 < sum(_speaks_first(one, other) for other in others) < 50
