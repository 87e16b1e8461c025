"""A leader that names a group without some who are ready: it has not heard them, so it says."""

from typing import Any

from dht.interfaces import Transport
from peer.misbehaviour.lying_transport import LyingTransport
from peer.participant import Participant
from protocols.identity import PeerId
from protocols.round.messages import Ready
from protocols.signed import Signed, Signer

VICTIMS = 2
"""More could leave it without a quorum, or without the half of the last group that its group must have."""


class ExcludingLeader(LyingTransport):
    """The first who tell it that they are ready are its victims from then on."""

    def __init__(self, transport: Transport, signer: Signer) -> None:
        super().__init__(transport, signer)
        self._victims: set[PeerId] = set()

    def hears(self, statement: Signed[Any]) -> bool:
        if not isinstance(statement.body, Ready):
            return True
        if len(self._victims) < VICTIMS:
            self._victims.add(statement.sender)
        return statement.sender not in self._victims


def excluding_leader(**given: Any) -> Participant:
    return Participant(**(given | {"transport": ExcludingLeader(given["transport"], given["signer"])}))
