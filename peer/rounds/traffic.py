"""What comes and goes on the streams of one round, and how long we wait for the next piece of it."""

import asyncio
from dataclasses import dataclass

from dht.interfaces import Frame, Stream, TimedOut


@dataclass(slots=True)
class Traffic:
    """Payload bytes of one round."""

    sent: int = 0
    received: int = 0


async def receive_within(stream: Stream, seconds: float, traffic: Traffic) -> Frame | None:
    """The next frame, counted if it is a chunk; None at the end of the stream.

    Raises TimedOut when nothing comes for so long, and what `Stream.receive` raises.
    """
    try:
        async with asyncio.timeout(seconds):
            frame = await stream.receive()
    except TimeoutError as error:
        raise TimedOut(f"{stream.peer} sent nothing for {seconds:.0f} s") from error
    if frame is not None and frame.header:  # a chunk; what comes without a header is the owner's statement
        traffic.received += memoryview(frame.payload).nbytes
    return frame
