"""The transport of a member that takes part as it should, but for what it puts on the wire."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from dht.interfaces import Frame, RequestHandler, Stream, StreamHandler, Transport
from protocols.identity import PeerId

Tamper = Callable[[Frame], Iterable[Frame]]
"""What is sent instead of a frame."""


class EvilTransport(Transport):
    """Passes everything on; `sent` changes the frames of the streams it opens, `served` those of the ones it serves."""

    def __init__(
        self, transport: Transport, kind: str, *, sent: Tamper | None = None, served: Tamper | None = None
    ) -> None:
        self.peer_id, self.clock = transport.peer_id, transport.clock
        self._transport, self._kind = transport, kind
        self._sent, self._served = sent, served

    async def request(self, peer: PeerId, kind: str, body: bytes, timeout_seconds: float) -> bytes:
        return await self._transport.request(peer, kind, body, timeout_seconds)

    async def open_stream(self, peer: PeerId, kind: str) -> Stream:
        stream = await self._transport.open_stream(peer, kind)
        return EvilStream(stream, self._sent) if self._sent and kind == self._kind else stream

    async def serve_requests(self, kind: str, handler: RequestHandler, *limits: int) -> None:
        await self._transport.serve_requests(kind, handler, *limits)

    async def serve_streams(self, kind: str, handler: StreamHandler, *limits: int) -> None:
        tamper = self._served
        if tamper is None or kind != self._kind:
            await self._transport.serve_streams(kind, handler, *limits)
            return

        def evil(stream: Stream) -> Awaitable[None]:
            return handler(EvilStream(stream, tamper))

        await self._transport.serve_streams(kind, evil, *limits)

    async def connect(self, peer: PeerId, addresses: Sequence[str]) -> None:
        await self._transport.connect(peer, addresses)

    def remember(self, peer: PeerId, addresses: Sequence[str]) -> None:
        self._transport.remember(peer, addresses)

    def reject(self, peer: PeerId, reason: str, message: str) -> None:
        self._transport.reject(peer, reason, message)

    async def in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await self._transport.in_thread(function, *arguments)

    async def close(self) -> None:
        await self._transport.close()


class EvilStream(Stream):
    def __init__(self, stream: Stream, tamper: Tamper) -> None:
        self.peer = stream.peer
        self._stream, self._tamper = stream, tamper

    async def send(self, frame: Frame) -> None:
        for instead in self._tamper(frame):
            await self._stream.send(instead)

    async def receive(self) -> Frame | None:
        return await self._stream.receive()

    async def close(self) -> None:
        await self._stream.close()

    def abort(self) -> None:
        self._stream.abort()
