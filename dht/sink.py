"""How fast we can send to a peer: it takes some megabytes, throws them away, and says how many have come."""

import asyncio

from dht.interfaces import Clock, Frame, Stream, TimedOut, Transport
from protocols.encoding import EncodingError, decode_scalars, encode
from protocols.identity import PeerId
from protocols.rejection import Reason, Rejected

SINK_KIND = "sink"
LIMIT_BYTES = 8 * 1024 * 1024
"""A stream may bring so much."""
STREAM_SECONDS = 60.0
AT_ONCE = 4
"""Streams that are taken at the same time, of all peers."""
PIECE_BYTES = 128 * 1024
SHORTEST_SECONDS = 1e-6
_THAT_WAS_ALL = b"that was all"


async def serve_sink(transport: Transport, limit_bytes: int = LIMIT_BYTES) -> None:
    """From now on others can measure how fast they send to us."""
    places = asyncio.Semaphore(AT_ONCE)

    async def swallow(stream: Stream) -> None:
        if places.locked():
            raise Rejected(Reason.BUSY, "others are measuring just now")
        async with places:
            try:
                async with asyncio.timeout(STREAM_SECONDS):
                    await _swallow(stream, limit_bytes)
            except TimeoutError as error:
                raise Rejected(Reason.BUSY, f"a measurement took longer than {STREAM_SECONDS:.0f} s") from error

    await transport.serve_streams(SINK_KIND, swallow, PIECE_BYTES)


async def _swallow(stream: Stream, limit_bytes: int) -> None:
    taken = 0
    while (frame := await stream.receive()) is not None:
        if frame.header:
            await stream.send(Frame(encode([taken])))
            return
        taken += memoryview(frame.payload).nbytes
        if taken > limit_bytes:
            raise Rejected(Reason.OVERSIZED, f"more than {limit_bytes} bytes to throw away")


async def measure_upload(transport: Transport, peer: PeerId, size_bytes: int, seconds: float) -> float:
    """Sends `size_bytes`, or what goes in `seconds`, to a connected peer; bytes per second, until it has them all.

    Raises Unreachable, TimedOut, Rejected (malformed, unexpected).
    """
    try:
        async with asyncio.timeout(STREAM_SECONDS), await transport.open_stream(peer, SINK_KIND) as stream:
            return await _fill(stream, size_bytes, seconds, transport.clock)
    except TimeoutError as error:
        raise TimedOut(f"{peer} has not taken {size_bytes} bytes in {STREAM_SECONDS:.0f} s") from error


async def _fill(stream: Stream, size_bytes: int, seconds: float, clock: Clock) -> float:
    piece = bytes(PIECE_BYTES)
    began = clock.monotonic()
    sent = 0
    while sent < size_bytes and clock.monotonic() - began < seconds:
        await stream.send(Frame(b"", piece))
        sent += PIECE_BYTES
    await stream.send(Frame(_THAT_WAS_ALL))
    answer = await stream.receive()
    elapsed = clock.monotonic() - began
    try:
        (taken,) = decode_scalars(answer.header if answer is not None else b"", 1)
    except EncodingError as error:
        raise Rejected(Reason.MALFORMED, f"{stream.peer} does not say what it has got") from error
    if taken != sent:
        raise Rejected(Reason.UNEXPECTED, f"{stream.peer} has got {taken} of {sent} bytes")
    return sent / max(elapsed, SHORTEST_SECONDS)
