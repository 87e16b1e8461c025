"""What is kept of the rounds to come, for which nobody has opened a session yet."""

import pytest

from peer.rounds.sessions import EARLY_BYTES, EARLY_BYTES_OF_ONE, Sessions
from protocols.identity import PeerId
from protocols.message import Message
from protocols.rejection import Reason, Rejected
from protocols.round.messages import Wait
from protocols.signed import Signed
from tests.peer.simulated_swarm import identity

HALF = EARLY_BYTES_OF_ONE // 2


def said(sender: PeerId, size: int) -> Signed[Message]:
    return Signed("run", sender, 1, 0, Wait(term=0), bytes(size))


def hear(sessions: Sessions, sender: PeerId, size: int) -> bytes:
    return sessions.hear(sender, said(sender, size), 0, lambda _sender, _statement: None, asks=True)


def kept(sessions: Sessions) -> dict[str, tuple[int, int]]:
    return {what: (length, most) for what, length, most in sessions.queues()}


def no_rejections(peer: PeerId, error: Rejected) -> None:
    raise AssertionError(f"{peer} was charged: {error}")


def test_large_messages_of_one_are_kept_up_to_a_limit_of_bytes() -> None:
    sessions, sender = Sessions(0, no_rejections), identity(1).peer_id
    hear(sessions, sender, HALF)
    hear(sessions, sender, HALF)
    with pytest.raises(Rejected) as refused:
        hear(sessions, sender, 1)
    assert refused.value.reason == Reason.BUSY
    hear(sessions, identity(2).peer_id, 1)
    assert kept(sessions)["messages of epochs to come"][0] == 3


def test_large_messages_of_many_push_out_the_oldest() -> None:
    sessions = Sessions(0, no_rejections)
    senders = EARLY_BYTES // EARLY_BYTES_OF_ONE + 4
    for number in range(senders):
        hear(sessions, identity(number).peer_id, EARLY_BYTES_OF_ONE)
        length, most = kept(sessions)["their bytes"]
        assert length <= most
    assert kept(sessions)["messages of epochs to come"][0] == EARLY_BYTES // EARLY_BYTES_OF_ONE
