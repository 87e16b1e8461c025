"""One unix socket between us and p2pd that carries one libp2p stream: first p2pd's own message, then frames.

Bytes are received straight into the memory of the frame they belong to, and handed to the kernel from where they lie.
Back-pressure on both sides: `send` returns when no more than WRITE_BUFFER_BYTES wait for the kernel, and reading pauses
while two frames wait to be received.
"""

import asyncio
from collections import deque
from typing import cast

from dht.control import ControlError, DelimitedDecoder
from dht.framing import END_OF_STREAM_BYTES, Discarder, End, FrameDecoder, encode_prefix
from dht.interfaces import MAX_HEADER_BYTES, MAX_PAYLOAD_BYTES, Frame, Unreachable
from dht.receive_buffers import ReceiveBuffers
from protocols.rejection import Rejected

MAX_WAITING_FRAMES = 2
WRITE_BUFFER_BYTES = 256 * 1024
"""Enough to have the next bytes at hand when p2pd has taken the last: it wakes up for many at once."""
LINGER_SECONDS = 5.0
"""How long a closed stream waits for the other side's end; closing a unix socket sooner may lose what was sent."""
_SMALL_PAYLOAD_BYTES = 16 * 1024
"""Cheaper to copy than to write apart."""


class FrameConnection(asyncio.BufferedProtocol):
    """The protocol of one such socket; after `preamble`, `begin_frames` must be called before frames come in."""

    def __init__(self, buffers: ReceiveBuffers) -> None:
        self._buffers = buffers
        self._transport: asyncio.Transport | None = None
        self._decoder: DelimitedDecoder | FrameDecoder | Discarder = DelimitedDecoder()
        self._preamble: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting: deque[Frame | End | Exception] = deque()
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._lost = False
        self._closed = False
        self._they_ended = False

    # ── for its user ──

    async def preamble(self) -> bytes:
        """p2pd's message about this stream. Raises Unreachable or ControlError."""
        return await self._preamble

    def begin_frames(
        self, max_payload_bytes: int = MAX_PAYLOAD_BYTES, max_header_bytes: int = MAX_HEADER_BYTES
    ) -> None:
        self._decoder = FrameDecoder(max_payload_bytes, max_header_bytes, allocate=self._buffers.take)
        self._resume()

    def write(self, data: bytes) -> None:
        """Writes bytes that are no frame: the command to p2pd."""
        assert self._transport is not None
        self._transport.write(data)

    async def send(self, frame: Frame) -> None:
        """Returns when there is room for another frame. Raises Unreachable, or ValueError above the limits."""
        prefix, payload = encode_prefix(frame)
        if self._lost or self._closed or self._transport is None:
            raise Unreachable("the stream is closed")
        if len(payload) <= _SMALL_PAYLOAD_BYTES:
            self._transport.write(prefix + payload)
        else:
            self._transport.write(prefix)
            self._transport.write(payload)
        await self._writable.wait()
        if self._lost:
            raise Unreachable("the stream broke")

    async def receive(self) -> Frame | None:
        """The next frame, None after the end. Raises Unreachable (broken) or Rejected (oversized)."""
        while not self._waiting:
            if self._closed:
                raise Unreachable("the stream is closed")
            self._readable.clear()
            await self._readable.wait()
        item = self._waiting[0]
        if isinstance(item, Exception):
            raise item
        if item is End.OF_STREAM:
            return None
        assert isinstance(item, Frame)
        self._waiting.popleft()
        self._resume()
        return item

    @property
    def intact(self) -> bool:
        """Whether it can be used, and nothing waits to be received."""
        return not (self._lost or self._closed or self._waiting)

    def end(self) -> None:
        """Says that we send no more; we still receive."""
        if not (self._lost or self._closed) and self._transport is not None:
            self._transport.write(END_OF_STREAM_BYTES)

    def close(self) -> None:
        """Closes in order: what was sent arrives, what still comes in is dropped."""
        if self._closed:
            return
        self.end()
        self.linger()

    def linger(self) -> None:
        """Closes once the other side has ended, or LINGER_SECONDS from now; until then drops what comes in."""
        if self._closed or self._transport is None:
            return
        self._closed = True
        self._readable.set()
        if self._they_ended or self._lost:
            self._transport.close()
            return
        self._waiting.clear()
        self._transport.resume_reading()
        asyncio.get_running_loop().call_later(LINGER_SECONDS, self._transport.close)

    def abort(self) -> None:
        """Breaks the stream at once, unless it has been closed in order."""
        if not self._closed:
            self.abort_now()

    def abort_now(self) -> None:
        """Breaks the stream at once, whatever was sent before."""
        self._closed = True
        self._readable.set()
        if self._transport is not None:
            self._transport.abort()

    # ── for the event loop ──

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its type
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._decoder.buffer()

    def buffer_updated(self, nbytes: int) -> None:
        if isinstance(self._decoder, DelimitedDecoder):
            self._preamble_received(self._decoder, nbytes)
            return
        try:
            item = self._decoder.received(nbytes)
        except Rejected as error:
            self._decoder = Discarder()
            self._put(error)
            return
        if item is End.OF_STREAM:
            self._they_ended = True
            self._decoder = Discarder()
            if self._closed and self._transport is not None:
                self._transport.close()
        if item is not None:
            self._put(item)

    def eof_received(self) -> bool:
        return False  # p2pd never closes one direction alone: the transport may close

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, error: Exception | None) -> None:
        self._lost = True
        self._writable.set()
        broken = Unreachable("the stream broke")
        if not self._preamble.done():
            self._preamble.set_exception(broken)
            self._preamble.exception()  # nobody may be waiting
        if not self._they_ended:
            self._put(broken)
        self._readable.set()

    def _preamble_received(self, decoder: DelimitedDecoder, count: int) -> None:
        try:
            message = decoder.received(count)
        except ControlError as error:
            if not self._preamble.done():
                self._preamble.set_exception(error)
            self.abort()
            return
        if message is not None:
            self._pause()
            if not self._preamble.done():
                self._preamble.set_result(message)

    def _put(self, item: Frame | End | Exception) -> None:
        if self._closed:
            return
        self._waiting.append(item)
        self._readable.set()
        if isinstance(item, Frame) and len(self._waiting) >= MAX_WAITING_FRAMES:
            self._pause()

    def _pause(self) -> None:
        if not self._lost and self._transport is not None:
            self._transport.pause_reading()

    def _resume(self) -> None:
        if not self._lost and self._transport is not None and len(self._waiting) < MAX_WAITING_FRAMES:
            self._transport.resume_reading()
