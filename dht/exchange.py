"""What both transports share: requests and streams over connections of frames, and the border around every handler.

A request is one frame and so is its answer: the payload is the body, a header is a refusal. After an answer the
connection is kept for the next request of its kind. A transport adds how a connection is dialled and how incoming ones
arrive.
"""

import asyncio
from abc import abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from dht.bandwidth import Bandwidth
from dht.gate import MAX_REFUSAL_BYTES, Gate, decode_refusal
from dht.interfaces import (
    MAX_HEADER_BYTES,
    MAX_PAYLOAD_BYTES,
    MAX_REQUEST_BYTES,
    Clock,
    Frame,
    OnRejected,
    Refused,
    RequestHandler,
    Stream,
    StreamHandler,
    TimedOut,
    Transport,
    Unreachable,
)
from dht.kept_connections import KeptConnections
from dht.tasks import OwnedTasks
from protocols.identity import PeerId
from protocols.rejection import Reason, Rejected

CONNECT_SECONDS = 20.0
OPEN_SECONDS = 15.0
IDLE_SECONDS = 300.0
"""A stream on which a side waits this long for one frame is broken."""


class Connection(Protocol):
    """Frames to and from one peer, below `Stream`: it has no time limits and does not know its peer."""

    @property
    def intact(self) -> bool:
        """Whether it can be used, and nothing waits to be received."""

    def begin_frames(self, max_payload_bytes: int, max_header_bytes: int) -> None: ...
    async def send(self, frame: Frame) -> None: ...
    async def receive(self) -> Frame | None: ...
    def end(self) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...


@dataclass(frozen=True, slots=True)
class _Service:
    serve: Callable[[PeerId, Connection], Awaitable[None]]
    max_payload_bytes: int
    max_header_bytes: int


class ExchangeTransport(Transport):
    """A `Transport` over connections; what is left to its kind is `_dial`, `_offer` and `_disconnect`."""

    def __init__(self, peer_id: PeerId, clock: Clock, on_rejected: OnRejected) -> None:
        self.peer_id = peer_id
        self.clock = clock
        self.bandwidth = Bandwidth(clock)
        self._services: dict[str, _Service] = {}
        self._kept: KeptConnections[Connection] = KeptConnections()
        self._tasks = OwnedTasks()
        self._gate = Gate(
            clock, on_rejected, lambda peer: self._tasks.start(self._disconnect(peer), f"disconnect {peer}")
        )

    @abstractmethod
    async def _dial(self, peer: PeerId, kind: str) -> Connection:
        """A new connection, ready for frames. Raises Unreachable."""

    @abstractmethod
    async def _offer(self, kind: str) -> None:
        """From now on incoming connections of `kind` come to `_serve_connection`. Raises Unreachable."""

    @abstractmethod
    async def _disconnect(self, peer: PeerId) -> None:
        """Drops every connection to a peer that has misbehaved."""

    async def request(self, peer: PeerId, kind: str, body: bytes, timeout_seconds: float) -> bytes:
        try:
            async with asyncio.timeout(timeout_seconds):
                answer = await self._ask_as_before(peer, kind, body) or await self._ask_anew(peer, kind, body)
        except TimeoutError:
            raise TimedOut(f"{peer} did not answer {kind} in {timeout_seconds:g} seconds") from None
        except (Unreachable, Rejected) as error:
            raise Unreachable(f"no answer to {kind} from {peer}: {error}") from error
        if answer.header:
            reason, message = decode_refusal(answer.header)
            raise Refused(f"{peer} refused {kind}: {message}", reason)
        return bytes(answer.payload)

    async def _ask_as_before(self, peer: PeerId, kind: str, body: bytes) -> Frame | None:
        """The answer on a connection that was kept; None when there is none, or when it had broken meanwhile."""
        connection = self._kept.take(peer, kind)
        if connection is None:
            return None
        try:
            return await self._ask(peer, kind, connection, body)
        except Unreachable:
            return None

    async def _ask_anew(self, peer: PeerId, kind: str, body: bytes) -> Frame:
        return await self._ask(peer, kind, await self._dial(peer, kind), body)

    async def _ask(self, peer: PeerId, kind: str, connection: Connection, body: bytes) -> Frame:
        """Sends a request and reads its answer. Raises Unreachable, or Rejected for an oversized answer."""
        try:
            with suppress(Unreachable):  # refused early: the answer is on its way
                await self._send(connection, Frame(payload=body))
            answer = await connection.receive()
            if answer is None:
                raise Unreachable("it ended without an answer")
        except BaseException:
            connection.abort()
            raise
        if answer.header:
            connection.abort()
        else:
            self._kept.keep(peer, kind, connection)
        return answer

    async def open_stream(self, peer: PeerId, kind: str) -> Stream:
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                return ConnectionStream(peer, await self._dial(peer, kind), self.bandwidth)
        except TimeoutError:
            raise TimedOut(f"{peer} did not take a stream for {kind} in {OPEN_SECONDS:g} seconds") from None
        except Unreachable as error:
            raise Unreachable(f"no stream for {kind} to {peer}: {error}") from error

    async def serve_requests(self, kind: str, handler: RequestHandler, limit_bytes: int = MAX_REQUEST_BYTES) -> None:
        async def serve(peer: PeerId, connection: Connection) -> None:
            answered = False

            async def read_body() -> bytes | None:
                frame = await connection.receive()
                if frame is None and answered:
                    return None
                if frame is None or frame.header:
                    raise Rejected(Reason.MALFORMED, f"{kind}: a request is one frame without a header")
                return bytes(frame.payload)

            async def send_answer(refusal: bytes, answer: bytes) -> None:
                nonlocal answered
                await self._send(connection, Frame(header=refusal, payload=answer))
                answered = True

            await self._gate.serve_requests(peer, handler, read_body, send_answer)
            connection.close()

        await self._serve(kind, _Service(serve, limit_bytes, MAX_REFUSAL_BYTES))

    async def serve_streams(self, kind: str, handler: StreamHandler, limit_bytes: int = MAX_PAYLOAD_BYTES) -> None:
        async def serve(peer: PeerId, connection: Connection) -> None:
            await self._gate.serve_stream(ConnectionStream(peer, connection, self.bandwidth), handler)

        await self._serve(kind, _Service(serve, limit_bytes, min(limit_bytes, MAX_HEADER_BYTES)))

    def reject(self, peer: PeerId, reason: str, message: str) -> None:
        self._gate.reject(peer, reason, message)

    def refuses(self, peer: PeerId) -> bool:
        return self._gate.refuses(peer)

    def ban(self, peer: PeerId, why: str) -> None:
        self._gate.ban(peer, why)

    async def _send(self, connection: Connection, frame: Frame) -> None:
        """A request or its answer: within the limit on what we send, but too little to measure the link by."""
        await self.bandwidth.allow(frame.size_bytes)
        await connection.send(frame)

    async def _serve(self, kind: str, service: _Service) -> None:
        if kind in self._services:
            raise ValueError(f"{kind} is served already")
        self._services[kind] = service
        await self._offer(kind)

    async def _serve_connection(self, peer: PeerId, kind: str, connection: Connection) -> None:
        """Serves one incoming connection to its end. Raises Unreachable or TimeoutError when it breaks."""
        service = self._services[kind]
        connection.begin_frames(service.max_payload_bytes, service.max_header_bytes)
        await service.serve(peer, connection)


class ConnectionStream(Stream):
    """A connection with the time limits and the messages of a `Stream`, and within the bandwidth of its transport."""

    def __init__(self, peer: PeerId, connection: Connection, bandwidth: Bandwidth) -> None:
        self.peer = peer
        self._connection = connection
        self._bandwidth = bandwidth

    async def send(self, frame: Frame) -> None:
        await self._bandwidth.allow(frame.size_bytes)
        try:
            with self._bandwidth.sending(self.peer, frame.size_bytes):
                async with asyncio.timeout(IDLE_SECONDS):
                    await self._connection.send(frame)
        except TimeoutError:
            self.abort()
            raise Unreachable(f"{self.peer} took nothing for {IDLE_SECONDS:g} seconds") from None
        except Unreachable as error:
            raise Unreachable(f"cannot send to {self.peer}: {error}") from error

    async def receive(self) -> Frame | None:
        try:
            async with asyncio.timeout(IDLE_SECONDS):
                return await self._connection.receive()
        except TimeoutError:
            self.abort()
            raise Unreachable(f"{self.peer} sent nothing for {IDLE_SECONDS:g} seconds") from None
        except Unreachable as error:
            raise Unreachable(f"cannot receive from {self.peer}: {error}") from error

    async def close(self) -> None:
        self._connection.close()

    def abort(self) -> None:
        self._connection.abort()
