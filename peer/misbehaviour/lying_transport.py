"""What the member inside says passes through here, and may become something else before it is on the wire.

The member inside is honest and knows of nothing: it holds what it has really signed for what it has said.
"""

from collections.abc import Awaitable, Iterable
from contextlib import suppress
from typing import Any

from dht.interfaces import RequestHandler, Stream, StreamHandler, Transport, TransportError
from dht.wrapped_transport import WrappedTransport
from peer.rounds.post import MAX_MESSAGE_BYTES, ROUND_KIND
from protocols.encoding import digest
from protocols.identity import PeerId
from protocols.message import Message
from protocols.rejection import Rejected
from protocols.round.messages import ROUND_MESSAGES
from protocols.signed import Signed, Signer, open_signed, signed_run_and_kind

EXTRA_SECONDS = 2.0
"""For what is said beside what the member inside waits for."""


class LyingTransport(WrappedTransport):
    """One of the hooks is overridden by an attack; as they are, all passes as it is."""

    def __init__(self, transport: Transport, signer: Signer) -> None:
        super().__init__(transport)
        self.signer = signer

    # -- hooks --------------------------------------------------------------------------------------------------------

    def say(self, to: PeerId, statement: Signed[Any]) -> Iterable[Message]:
        """What is said to `to` instead of our statement of a round; each is signed, and the last one's answer counts.

        Nothing at all: it is lost on the way.
        """
        return (statement.body,)

    def hears(self, statement: Signed[Any]) -> bool:
        """Whether the member inside hears of this statement of a round, by another."""
        return True

    def opened(self, kind: str, stream: Stream) -> Stream:
        """The stream that the member inside has opened."""
        return stream

    def served(self, kind: str, stream: Stream) -> Stream:
        """The stream that somebody has opened to the member inside."""
        return stream

    # -- Transport ----------------------------------------------------------------------------------------------------

    async def request(self, peer: PeerId, kind: str, body: bytes, timeout_seconds: float) -> bytes:
        if kind != ROUND_KIND:
            return await super().request(peer, kind, body, timeout_seconds)
        statement = round_statement(body)
        wires = [body] if statement is None else self._wires(peer, statement)
        for wire in wires[:-1]:
            await self.also(peer, kind, wire)
        return await super().request(peer, kind, wires[-1], timeout_seconds) if wires else b""

    async def also(self, peer: PeerId, kind: str, body: bytes) -> None:
        """Says something that nobody inside waits for."""
        with suppress(TransportError):
            await super().request(peer, kind, body, EXTRA_SECONDS)

    def _wires(self, to: PeerId, statement: Signed[Any]) -> list[bytes]:
        if statement.sender != self.peer_id:  # passed on
            return [statement.wire]
        return [
            statement.wire if body is statement.body else self.signer.sign(body, statement.epoch).wire
            for body in self.say(to, statement)
        ]

    async def open_stream(self, peer: PeerId, kind: str) -> Stream:
        return self.opened(kind, await super().open_stream(peer, kind))

    async def serve_requests(self, kind: str, handler: RequestHandler, *limits: int) -> None:
        async def handle(peer: PeerId, body: bytes) -> bytes:
            statement = round_statement(body) if kind == ROUND_KIND else None
            return await handler(peer, body) if statement is None or self.hears(statement) else b""

        await super().serve_requests(kind, handle, *limits)

    async def serve_streams(self, kind: str, handler: StreamHandler, *limits: int) -> None:
        def handle(stream: Stream) -> Awaitable[None]:
            return handler(self.served(kind, stream))

        await super().serve_streams(kind, handle, *limits)


def round_statement(wire: bytes) -> Signed[Any] | None:
    """None when it is not a statement of a round; the member inside may say what is wrong with it."""
    try:
        run, kind = signed_run_and_kind(wire, MAX_MESSAGE_BYTES)
        return open_signed(wire, ROUND_MESSAGES[kind], run=run) if kind in ROUND_MESSAGES else None
    except Rejected:
        return None


def in_other_half(peer: PeerId) -> bool:
    """Whether `peer` is one of those who are told the second of two stories; the same ones for all attackers."""
    return digest(peer.encode())[0] % 2 == 1
