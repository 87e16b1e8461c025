"""Who may have how many incoming streams, and what happens to bad input: the same for both transports.

`serve_requests` and `serve_stream` are the border at which every exception of a handler ends: a refusal is counted and
charged to its sender, anything else is logged and counted, and the daemon goes on.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from dht.interfaces import (
    MAX_STREAMS_PER_PEER,
    Clock,
    OnRejected,
    RequestHandler,
    Stream,
    StreamHandler,
    TransportError,
)
from dht.rates import Rates
from dht.strikes import Strikes
from protocols.encoding import EncodingError, decode, encode
from protocols.identity import PeerId
from protocols.printable import printable
from protocols.rejection import Reason, Rejected

log = logging.getLogger(__name__)

MAX_STREAMS = 1024
EXCHANGES_PER_SECOND = 100.0
EXCHANGES_AT_ONCE = 400.0
"""Requests and streams of one peer, whatever is in them: several times what the fastest rounds need."""
EXCHANGE_SECONDS = 60.0
"""A request must be read, handled and answered within this time."""
HANDLER_FAILED = "handler_failed"
"""Counted as a reason: our handler raised what it should not have."""
MAX_REFUSAL_BYTES = 2048
_MAX_REFUSAL_CHARACTERS = 256

OnSuspended = Callable[[PeerId], object]


class Gate:
    """Counts the incoming streams of each peer, and its refusals."""

    def __init__(self, clock: Clock, on_rejected: OnRejected, on_suspended: OnSuspended) -> None:
        self._clock = clock
        self._on_rejected = on_rejected
        self._on_suspended = on_suspended
        self._streams: Counter[PeerId] = Counter()
        self._streams_of_all = 0
        self._strikes = Strikes()
        self._rates = Rates(EXCHANGES_PER_SECOND, EXCHANGES_AT_ONCE)
        self._banned: dict[PeerId, str] = {}

    @contextmanager
    def admit(self, peer: PeerId) -> Iterator[None]:
        """Holds a place for one incoming stream of `peer`. Raises Rejected (banned, busy)."""
        if peer in self._banned:
            raise Rejected(Reason.BANNED, self._banned[peer])
        if self._strikes.suspended(peer, self._clock.monotonic()):
            raise Rejected(Reason.BUSY, "refused for a while after too much bad input")
        if self._streams[peer] >= MAX_STREAMS_PER_PEER:
            raise Rejected(Reason.BUSY, f"more than {MAX_STREAMS_PER_PEER} streams at once")
        if self._streams_of_all >= MAX_STREAMS:
            raise Rejected(Reason.BUSY, f"more than {MAX_STREAMS} streams of all peers")
        self._streams[peer] += 1
        self._streams_of_all += 1
        try:
            yield
        finally:
            self._streams_of_all -= 1
            self._streams[peer] -= 1
            if not self._streams[peer]:
                del self._streams[peer]

    def refuses(self, peer: PeerId) -> bool:
        """Whether all streams of `peer` are refused now, whatever is in them."""
        return peer in self._banned or self._strikes.suspended(peer, self._clock.monotonic())

    def _take_one(self, peer: PeerId) -> None:
        """Raises Rejected (busy)."""
        if not self._rates.take(peer, self._clock.monotonic()):
            raise Rejected(Reason.BUSY, f"more than {EXCHANGES_PER_SECOND:.0f} requests and streams a second")

    def ban(self, peer: PeerId, why: str) -> None:
        """Refuses all streams of `peer` from now on."""
        self._banned[peer] = why
        self._on_suspended(peer)

    def reject(self, peer: PeerId, reason: str, message: str) -> None:
        """Counts a refusal and charges it to `peer`."""
        self._on_rejected(peer, reason, message)
        if self._strikes.charge(peer, reason, self._clock.monotonic()):
            log.warning("%s is disconnected after too much bad input, the last: %s", peer, message)
            self._on_suspended(peer)

    async def serve_requests(
        self,
        peer: PeerId,
        handler: RequestHandler,
        read_body: Callable[[], Awaitable[bytes | None]],
        send_answer: Callable[[bytes, bytes], Awaitable[None]],
    ) -> None:
        """Reads, handles and answers requests until there are no more (`read_body` gives None) or one is refused.

        `send_answer(refusal, body)`, where a refusal is empty or the body. Raises TransportError when the peer is
        gone, TimeoutError when a request takes EXCHANGE_SECONDS, the wait for it included.
        """
        try:
            with self.admit(peer):
                while await self._serve_request(peer, handler, read_body, send_answer):
                    pass
        except Rejected as rejection:
            self.reject(peer, rejection.reason, str(rejection))
            await send_answer(encode_refusal(rejection.reason, str(rejection)), b"")

    async def _serve_request(
        self,
        peer: PeerId,
        handler: RequestHandler,
        read_body: Callable[[], Awaitable[bytes | None]],
        send_answer: Callable[[bytes, bytes], Awaitable[None]],
    ) -> bool:
        """Whether there may be another one on this connection. Raises Rejected, TransportError, TimeoutError."""
        async with asyncio.timeout(EXCHANGE_SECONDS):
            body = await read_body()
            if body is None:
                return False
            self._take_one(peer)
            try:
                answer = await handler(peer, body)
            except (Rejected, TransportError):
                raise
            except Exception as error:
                log.exception("a request of %s failed here", peer)
                self.reject(peer, HANDLER_FAILED, f"{type(error).__name__}: {error}")
                await send_answer(encode_refusal(HANDLER_FAILED, "the request could not be served"), b"")
                return False
            await send_answer(b"", answer)
            return True

    async def serve_stream(self, stream: Stream, handler: StreamHandler) -> None:
        """Runs `handler`, then closes the stream, or aborts it when that raised."""
        try:
            with self.admit(stream.peer):
                self._take_one(stream.peer)
                await handler(stream)
                await stream.close()
            return
        except TransportError as error:
            log.debug("a stream of %s broke: %s", stream.peer, error)
        except Rejected as rejection:
            self.reject(stream.peer, rejection.reason, str(rejection))
        except Exception as error:
            log.exception("a stream of %s failed here", stream.peer)
            self.reject(stream.peer, HANDLER_FAILED, f"{type(error).__name__}: {error}")
        except BaseException:
            stream.abort()
            raise
        stream.abort()


def encode_refusal(reason: str, message: str) -> bytes:
    return encode([str(reason), message[:_MAX_REFUSAL_CHARACTERS]])


def decode_refusal(data: bytes) -> tuple[str, str]:
    """(reason, message) of a peer's refusal, whatever it sent."""
    try:
        reason, message = decode(data, MAX_REFUSAL_BYTES)
    except (EncodingError, TypeError, ValueError):
        return Reason.MALFORMED, "the refusal itself is malformed"
    if not isinstance(reason, str) or not isinstance(message, str):
        return Reason.MALFORMED, "the refusal itself is malformed"
    return printable(reason[:64]), printable(message[:_MAX_REFUSAL_CHARACTERS])
