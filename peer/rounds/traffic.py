"""What comes and goes on the streams of one round."""

from dataclasses import dataclass

from dht.interfaces import Frame, Stream
from peer.streams import receive_within


@dataclass(slots=True)
class Traffic:
    """Payload bytes of one round."""

    sent: int = 0
    received: int = 0


async def receive_counted(stream: Stream, seconds: float, traffic: Traffic) -> Frame | None:
    """The next frame, counted if it is a chunk; None at the end of the stream.

    Raises what `receive_within` does.
    """
    frame = await receive_within(stream, seconds)
    if frame is not None and frame.header:  # a chunk; what comes without a header is the owner's statement
        traffic.received += memoryview(frame.payload).nbytes
    return frame
