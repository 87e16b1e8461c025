"""A transport that passes everything on to another one: to look at what goes through it, or to change it.

For tests, and for members that attack on purpose (`peer.misbehaviour`).
"""

from collections.abc import Callable, Sequence
from typing import Any

from dht.interfaces import Frame, RequestHandler, Stream, StreamHandler, Transport
from protocols.identity import PeerId


class WrappedTransport(Transport):
    def __init__(self, transport: Transport) -> None:
        self.peer_id, self.clock = transport.peer_id, transport.clock
        self._transport = transport

    async def request(self, peer: PeerId, kind: str, body: bytes, timeout_seconds: float) -> bytes:
        return await self._transport.request(peer, kind, body, timeout_seconds)

    async def open_stream(self, peer: PeerId, kind: str) -> Stream:
        return await self._transport.open_stream(peer, kind)

    async def serve_requests(self, kind: str, handler: RequestHandler, *limits: int) -> None:
        await self._transport.serve_requests(kind, handler, *limits)

    async def serve_streams(self, kind: str, handler: StreamHandler, *limits: int) -> None:
        await self._transport.serve_streams(kind, handler, *limits)

    async def connect(self, peer: PeerId, addresses: Sequence[str]) -> None:
        await self._transport.connect(peer, addresses)

    def remember(self, peer: PeerId, addresses: Sequence[str]) -> None:
        self._transport.remember(peer, addresses)

    def reject(self, peer: PeerId, reason: str, message: str) -> None:
        self._transport.reject(peer, reason, message)

    def refuses(self, peer: PeerId) -> bool:
        return self._transport.refuses(peer)

    def ban(self, peer: PeerId, why: str) -> None:
        self._transport.ban(peer, why)

    async def in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await self._transport.in_thread(function, *arguments)

    async def close(self) -> None:
        await self._transport.close()


class WrappedStream(Stream):
    def __init__(self, stream: Stream) -> None:
        self.peer = stream.peer
        self._stream = stream

    async def send(self, frame: Frame) -> None:
        await self._stream.send(frame)

    async def receive(self) -> Frame | None:
        return await self._stream.receive()

    async def close(self) -> None:
        await self._stream.close()

    def abort(self) -> None:
        self._stream.abort()
