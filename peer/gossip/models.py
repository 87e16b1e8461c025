"""A model on a stream: its signed head, then its chunks, each checked against the head before it is used."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from dht.interfaces import Frame, Stream, Transport, Unreachable
from peer.rounds.chunk_frames import chunk_frames, chunks_of
from peer.rounds.exchange import PART_FRAME_BYTES
from peer.streams import receive_within
from protocols.codecs import Codec
from protocols.encoding import digest
from protocols.gossip.messages import Model
from protocols.rejection import Reason, Rejected
from protocols.round.parts import Grid
from protocols.round.reduction import EncodedUpdate
from protocols.signed import BodyT, Signed, open_signed
from protocols.vectors import Vector

MODEL_FRAME_BYTES = PART_FRAME_BYTES
BUSY = Frame(b"busy")
"""Instead of a model: not now."""


class Busy(Exception):
    """Not now: our hands are full."""


class PeerBusy(Busy):
    """The other's are."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A model as it is sent, and what its receiver decodes."""

    update: EncodedUpdate
    values: Vector

    @classmethod
    def of(cls, model: Vector, codec: Codec) -> Self:
        """Blocking."""
        update = EncodedUpdate(model, codec)
        values = np.empty_like(model)
        for number, chunk in enumerate(update.chunks):
            out = values[update.grid.bounds(number)]
            codec.decode_into(out, chunk, len(out))
        return cls(update, values)

    @property
    def size_bytes(self) -> int:
        return sum(memoryview(chunk).nbytes for chunk in self.update.chunks)


def encoded_bytes(count: int, codec: Codec) -> int:
    """Of a model of `count` elements, its chunks together."""
    grid = Grid(count)
    return sum(codec.encoded_size(grid.size(chunk)) for chunk in range(grid.chunks))


async def send_model(stream: Stream, head: Signed[Any], model: Encoded) -> None:
    """Raises Unreachable."""
    await stream.send(Frame(head.wire))
    for frame in chunk_frames(model.update.chunks, 0):
        await stream.send(frame)


async def receive_message(stream: Stream, body_type: type[BodyT], run: str, silence_seconds: float) -> Signed[BodyT]:
    """The next message, which may be that long in coming. Raises PeerBusy, TransportError, Rejected."""
    frame = await _receive(stream, silence_seconds)
    if frame.header == BUSY.header and body_type is Model:
        raise PeerBusy(f"{stream.peer} has its hands full")
    return open_signed(frame.header, body_type, run=run, sender=stream.peer)


async def receive_chunks(
    stream: Stream, digests: Sequence[bytes], count: int, codec: Codec, transport: Transport, silence_seconds: float
) -> Vector:
    """The model of `count` elements whose chunks have these digests.

    Raises TransportError; Rejected: wrong_shape, wrong_digest, non_finite, unexpected (not in order), malformed.
    """
    grid = Grid(count)
    if len(digests) != grid.chunks:
        raise Rejected(Reason.WRONG_SHAPE, f"a model of {len(digests)} chunks, not {grid.chunks}")
    values = np.empty(count, np.float32)
    arrived = 0
    while arrived < grid.chunks:
        frame = await _receive(stream, silence_seconds)
        arrived = await transport.in_thread(_take, frame, values, arrived, digests, grid, codec)
    return values


def _take(frame: Frame, values: Vector, arrived: int, digests: Sequence[bytes], grid: Grid, codec: Codec) -> int:
    """Checks and decodes the chunks of one frame; how many have arrived with it."""
    for number, payload in chunks_of(frame, grid, codec):
        if number != arrived:
            raise Rejected(Reason.UNEXPECTED, f"chunk {number} where {arrived} was due")
        if digest(memoryview(payload)) != digests[number]:
            raise Rejected(Reason.WRONG_DIGEST, f"chunk {number} is not what its sender has signed")
        out = values[grid.bounds(number)]
        codec.check(payload, len(out))
        codec.decode_into(out, payload, len(out))
        arrived += 1
    return arrived


async def _receive(stream: Stream, silence_seconds: float) -> Frame:
    frame = await receive_within(stream, silence_seconds)
    if frame is None:
        raise Unreachable(f"{stream.peer} has ended the exchange")
    return frame
