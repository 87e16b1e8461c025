"""Looks on at what a member accepts: nothing may be among it that its sender has not signed."""

from collections.abc import Callable

from dht.interfaces import Frame, RequestHandler, Stream, StreamHandler, Transport
from dht.wrapped_transport import WrappedStream, WrappedTransport
from peer.membership import HELLO_KIND
from peer.rounds.exchange import PART_KIND
from peer.rounds.post import ROUND_KIND
from peer.verification.inspector import VERIFY_KIND
from protocols.identity import PeerId
from protocols.rejection import Rejected
from protocols.round.messages import Done
from protocols.signed import signer_and_kind

REQUESTS = (ROUND_KIND, HELLO_KIND, VERIFY_KIND)
"""Requests of these kinds are signed statements."""
STREAMS = (PART_KIND,)
"""The first frame of a stream of these kinds has one for a header."""
PASSED_ON = (Done.kind,)
"""Kinds of statements that may come from others than their senders."""

OnAccepted = Callable[[str | None], None]
"""What is wrong with a statement that was accepted; None: nothing."""


class WatchedTransport(WrappedTransport):
    """Passes everything on, and looks at each statement that was not refused."""

    def __init__(self, transport: Transport, on_accepted: OnAccepted) -> None:
        super().__init__(transport)
        self._on_accepted = on_accepted

    async def serve_requests(self, kind: str, handler: RequestHandler, *limits: int) -> None:
        async def handle(peer: PeerId, body: bytes) -> bytes:
            answer = await handler(peer, body)
            self._on_accepted(flaw(body, peer))
            return answer

        await super().serve_requests(kind, handle if kind in REQUESTS else handler, *limits)

    async def serve_streams(self, kind: str, handler: StreamHandler, *limits: int) -> None:
        async def handle(stream: Stream) -> None:
            watched = _FirstHeader(stream)
            await handler(watched)
            if watched.header is not None:
                self._on_accepted(flaw(watched.header, stream.peer))

        await super().serve_streams(kind, handle if kind in STREAMS else handler, *limits)


class _FirstHeader(WrappedStream):
    """Remembers the header of the first frame that comes in."""

    header: bytes | None = None

    async def receive(self) -> Frame | None:
        frame = await super().receive()
        if self.header is None and frame is not None:
            self.header = frame.header
        return frame


def flaw(wire: bytes, came_from: PeerId) -> str | None:
    """Why a statement that came from there must not be accepted."""
    try:
        signer, kind = signer_and_kind(wire)
    except Rejected as error:
        return f"a statement was accepted that is none: {error}"
    if signer != came_from and kind not in PASSED_ON:
        return f"{kind} of {signer} was accepted from {came_from}"
    return None
