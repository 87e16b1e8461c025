"""Words that are not one's own, or not of now: statements that name another sender, and old ones said again."""

from collections import deque
from random import Random
from typing import Any

from dht.interfaces import Records, RequestHandler, Transport
from peer.membership import HELLO_KIND
from peer.misbehaviour.lying_transport import LyingTransport, round_statement
from peer.participant import Participant
from peer.rounds.post import ROUND_KIND
from protocols.encoding import digest
from protocols.identity import PeerId
from protocols.records import RosterEntry
from protocols.signed import Signed, Signer, open_signed

STATEMENTS = (ROUND_KIND, HELLO_KIND)
"""Kinds of requests that are statements."""
REMEMBERED = 256
REPEATED = 2
"""Old statements with each new one."""


class Impostor(Signer):
    """Signs with its own key what names another."""

    def __init__(self, own: Signer, name: PeerId, first_sequence: int) -> None:
        super().__init__(own.identity, own.run, first_sequence)
        self._name = name

    @property
    def peer_id(self) -> PeerId:
        return self._name


class ForgedSender(LyingTransport):
    """With all that it says, to rounds or about itself, says something in the name of another member."""

    def __init__(self, transport: Transport, signer: Signer) -> None:
        super().__init__(transport, signer)
        self._names: deque[PeerId] = deque(maxlen=REMEMBERED)

    def forged(self, statement: Signed[Any], to: PeerId | None = None) -> bytes | None:
        """In the name of the next who is not `to`; None while nobody is known."""
        for _ in range(len(self._names)):
            self._names.rotate(1)
            if self._names[0] != to:
                return (
                    Impostor(self.signer, self._names[0], statement.sequence).sign(statement.body, statement.epoch).wire
                )
        return None

    async def request(self, peer: PeerId, kind: str, body: bytes, timeout_seconds: float) -> bytes:
        if kind in STATEMENTS:
            if peer not in self._names:
                self._names.append(peer)
            statement = (
                round_statement(body) if kind == ROUND_KIND else open_signed(body, RosterEntry, run=self.signer.run)
            )
            if statement is not None and (forged := self.forged(statement, peer)) is not None:
                await self.also(peer, kind, forged)
        return await super().request(peer, kind, body, timeout_seconds)


class ForgedRecords(Records):
    """Publishes each record under another member's name, too."""

    def __init__(self, records: Records, transport: ForgedSender) -> None:
        self._records, self._transport = records, transport

    async def publish(self, record: Signed[Any], expires: float) -> bool:
        forged = self._transport.forged(record)
        if forged is not None:
            name = self._transport._names[0]
            await self._records.publish(
                Signed(record.run, name, record.epoch, record.sequence, record.body, forged), expires
            )
        return await self._records.publish(record, expires)

    async def lookup(self, run: str, kind: str) -> list[Signed[Any]]:
        return await self._records.lookup(run, kind)


def forged_sender(**given: Any) -> Participant:
    transport = ForgedSender(given["transport"], given["signer"])
    return Participant(**(given | {"transport": transport, "records": ForgedRecords(given["records"], transport)}))


class Replay(LyingTransport):
    """Keeps the statements that it hears and those that it makes, and says some of them again with each new one."""

    def __init__(self, transport: Transport, signer: Signer) -> None:
        super().__init__(transport, signer)
        self._kept: deque[tuple[str, bytes]] = deque(maxlen=REMEMBERED)
        self._random = Random(digest(self.peer_id.encode()))  # noqa: S311 (repeatable on purpose)

    async def request(self, peer: PeerId, kind: str, body: bytes, timeout_seconds: float) -> bytes:
        if kind in STATEMENTS:
            for of_kind, wire in self._random.sample(list(self._kept), min(REPEATED, len(self._kept))):
                await self.also(peer, of_kind, wire)
            self._kept.append((kind, body))
        return await super().request(peer, kind, body, timeout_seconds)

    async def serve_requests(self, kind: str, handler: RequestHandler, *limits: int) -> None:
        async def keep(peer: PeerId, body: bytes) -> bytes:
            if kind in STATEMENTS:
                self._kept.append((kind, body))
            return await handler(peer, body)

        await super().serve_requests(kind, keep, *limits)


def replay(**given: Any) -> Participant:
    return Participant(**(given | {"transport": Replay(given["transport"], given["signer"])}))
