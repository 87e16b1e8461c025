"""Looks on at what a member accepts: nothing may be among it that its sender has not signed."""

import asyncio
from collections import deque
from collections.abc import Callable
from functools import lru_cache

from dht.interfaces import Frame, RequestHandler, Stream, StreamHandler, Transport
from dht.wrapped_transport import WrappedStream, WrappedTransport
from peer.gossip.committees import MODEL_KIND
from peer.gossip.exchanges import GOSSIP_KIND
from peer.gossip.models import BUSY
from peer.membership import HELLO_KIND
from peer.rounds.chunk_frames import CHUNK_HEADER_BYTES
from peer.rounds.exchange import PART_KIND
from peer.rounds.post import ELSEWHERE, ROUND_KIND
from peer.verification.inspector import VERIFY_KIND
from protocols.identity import PeerId
from protocols.rejection import Rejected
from protocols.round.messages import Done
from protocols.signed import signer_and_kind

REQUESTS = (ROUND_KIND, HELLO_KIND, VERIFY_KIND)
"""Requests of these kinds are signed statements."""
STREAMS = (PART_KIND, MODEL_KIND)
"""The first frame of a stream of these kinds has one for a header."""
CONVERSATIONS = (GOSSIP_KIND,)
"""On a stream of these kinds each frame that is no chunk has one, from both ends."""
PASSED_ON = (Done.kind,)
"""Kinds of statements that may come from others than their senders."""

OnAccepted = Callable[[str | None], None]
"""What is wrong with a statement that was accepted; None: nothing."""


class WatchedTransport(WrappedTransport):
    """Passes everything on, and looks at each statement that was not refused."""

    def __init__(self, transport: Transport, on_accepted: OnAccepted) -> None:
        super().__init__(transport)
        self._on_accepted = on_accepted
        self._answers: deque[tuple[PeerId, bytes]] = deque()
        """To messages of a round, just come in."""

    async def request(self, peer: PeerId, kind: str, body: bytes, timeout_seconds: float) -> bytes:
        answer = await super().request(peer, kind, body, timeout_seconds)
        if kind == ROUND_KIND and answer not in (b"", ELSEWHERE):
            self._answers.append((peer, answer))
            asyncio.get_running_loop().call_soon(self._look_at_answers)  # once it is taken in, or rejected
        return answer

    def reject(self, peer: PeerId, reason: str, message: str) -> None:
        self._answers = deque(answer for answer in self._answers if answer[0] != peer)
        super().reject(peer, reason, message)

    def _look_at_answers(self) -> None:
        while self._answers:
            peer, answer = self._answers.popleft()
            if not self.refuses(peer):
                self._on_accepted(flaw(answer, peer))

    async def serve_requests(self, kind: str, handler: RequestHandler, *limits: int) -> None:
        async def handle(peer: PeerId, body: bytes) -> bytes:
            answer = await handler(peer, body)
            self._on_accepted(flaw(body, peer))
            return answer

        await super().serve_requests(kind, handle if kind in REQUESTS else handler, *limits)

    async def serve_streams(self, kind: str, handler: StreamHandler, *limits: int) -> None:
        async def handle(stream: Stream) -> None:
            watched = _Watched(stream, self._on_accepted, first_only=kind in STREAMS)
            await handler(watched)
            watched.accept()

        await super().serve_streams(kind, handle if kind in (*STREAMS, *CONVERSATIONS) else handler, *limits)

    async def open_stream(self, peer: PeerId, kind: str) -> Stream:
        stream = await super().open_stream(peer, kind)
        return _Watched(stream, self._on_accepted, first_only=False) if kind in CONVERSATIONS else stream


class _Watched(WrappedStream):
    """Remembers the statement that came last. Whoever waits for more, or ends in order, has accepted it."""

    def __init__(self, stream: Stream, on_accepted: OnAccepted, *, first_only: bool) -> None:
        super().__init__(stream)
        self._on_accepted, self._first_only = on_accepted, first_only
        self._last: bytes | None = None
        self._over = False

    async def receive(self) -> Frame | None:
        self.accept()
        frame = await super().receive()
        if frame is not None and not self._over and is_statement(frame):
            self._last, self._over = frame.header, self._first_only
        return frame

    async def close(self) -> None:
        self.accept()
        await super().close()

    def accept(self) -> None:
        if self._last is not None:
            self._on_accepted(flaw(self._last, self.peer))
            self._last = None


def is_statement(frame: Frame) -> bool:
    return len(frame.header) > CHUNK_HEADER_BYTES and frame != BUSY


@lru_cache(maxsize=4096)
def flaw(wire: bytes, came_from: PeerId) -> str | None:
    """Why a statement that came from there must not be accepted. Looked at once, as members say the same to many."""
    try:
        signer, kind = signer_and_kind(wire)
    except Rejected as error:
        return f"a statement was accepted that is none: {error}"
    if signer != came_from and kind not in PASSED_ON:
        return f"{kind} of {signer} was accepted from {came_from}"
    return None
