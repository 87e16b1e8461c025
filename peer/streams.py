"""What is common to the two ends of streams: nobody waits for ever for what the other sends."""

import asyncio

from dht.interfaces import Frame, Stream, TimedOut
from protocols.rejection import Reason, Rejected

SILENCE_SECONDS = 30.0
REQUEST_BYTES = 1024
"""A frame that asks for something is no longer; `serve_streams` of such a kind is given this limit."""


async def receive_within(stream: Stream, seconds: float) -> Frame | None:
    """The next frame; None at the end of the stream. Raises TimedOut after that, and what `Stream.receive` raises."""
    try:
        async with asyncio.timeout(seconds):
            return await stream.receive()
    except TimeoutError:
        raise TimedOut(f"{stream.peer} sent nothing for {seconds:.0f} s") from None


async def next_request(stream: Stream) -> Frame | None:
    """The next frame of a peer that asks; None when it has no more.

    Streams are few, and those that stay silent would keep others out. Raises Rejected (unexpected) after
    SILENCE_SECONDS, and what `Stream.receive` raises.
    """
    try:
        async with asyncio.timeout(SILENCE_SECONDS):
            return await stream.receive()
    except TimeoutError:
        raise Rejected(Reason.UNEXPECTED, f"nothing was asked for {SILENCE_SECONDS:.0f} seconds") from None
