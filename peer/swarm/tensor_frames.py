"""Tensors on a stream: a frame with a message and the first piece, then the other pieces, tensor after tensor."""

from collections.abc import Sequence

from dht.interfaces import Frame, Stream
from protocols.activations import TensorBounds, TensorHeader, bounds_of
from protocols.codecs import Payload
from protocols.rejection import Reason, Rejected

PIECE_BYTES = 512 * 1024
"""Of a tensor, in one frame."""
MAX_TENSOR_BYTES = 256 * 1024 * 1024


def check_announced(header: TensorHeader, accepted: Sequence[TensorBounds], codec: str) -> None:
    """Before anything of it is received. Raises Rejected (wrong_shape, oversized)."""
    if not header.whole and header.encoding != codec:
        raise Rejected(Reason.WRONG_SHAPE, f"activations in {header.encoding}, and the run's are in {codec}")
    bounds_of(header, accepted)
    if header.payload_bytes > MAX_TENSOR_BYTES:
        raise Rejected(Reason.OVERSIZED, f"a tensor of {header.payload_bytes} bytes")


async def send_message(stream: Stream, message: bytes, payloads: Sequence[Payload]) -> None:
    """Raises Unreachable."""
    pieces: list[Payload] = []
    for payload in payloads:
        view = memoryview(payload).cast("B")
        pieces += [view[start : start + PIECE_BYTES] for start in range(0, len(view), PIECE_BYTES)]
    await stream.send(Frame(message, pieces[0] if pieces else b""))
    for piece in pieces[1:]:
        await stream.send(Frame(b"", piece))


async def receive_payloads(stream: Stream, first: Frame, sizes: Sequence[int]) -> list[bytearray]:
    """What follows a message: a payload of each of these sizes; `first` is its frame.

    Raises Unreachable, Rejected (wrong_shape).
    """
    payloads: list[bytearray] = []
    frame: Frame | None = first
    for size in sizes:
        payload = bytearray()
        while len(payload) < size:
            if frame is None:
                frame = await stream.receive()
            if frame is None or not memoryview(frame.payload) or len(payload) + len(frame.payload) > size:
                raise Rejected(Reason.WRONG_SHAPE, "a tensor that is longer or shorter than was announced")
            payload += frame.payload
            frame = None
        payloads.append(payload)
    return payloads


async def pass_over_payloads(stream: Stream, first: Frame, size_bytes: int) -> None:
    """Reads what follows a message, and keeps nothing of it. Raises Unreachable, Rejected (wrong_shape)."""
    frame: Frame | None = first
    while frame is not None and 0 < (piece := memoryview(frame.payload).nbytes) <= size_bytes:
        size_bytes -= piece
        if not size_bytes:
            return
        frame = await stream.receive()
    raise Rejected(Reason.WRONG_SHAPE, "tensors that are longer or shorter than was announced")
