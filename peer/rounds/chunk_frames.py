"""Chunks on a stream: a frame has one, or several in a row, and the number of the first of them for a header."""

import struct
from collections.abc import Iterator, Sequence

from dht.interfaces import Frame
from protocols.codecs import Codec, Payload
from protocols.rejection import Reason, Rejected
from protocols.round.parts import Grid

TOGETHER_BYTES = 64 * 1024
"""Chunks travel together up to here: a frame costs as much time as some ten kilobytes do."""
SIGN_OF_LIFE = Frame(b"wait", b"")
"""From an owner that has no result yet."""
_HEADER = struct.Struct(">I")
CHUNK_HEADER_BYTES = _HEADER.size


def chunk_header(chunk: int) -> bytes:
    return _HEADER.pack(chunk)


def chunk_frames(chunks: Sequence[Payload], start: int) -> Iterator[Frame]:
    """The encoded `chunks`, of which the first has the number `start`."""
    together: list[Payload] = []
    size = 0
    for number, chunk in enumerate(chunks, start):
        if together and size + memoryview(chunk).nbytes > TOGETHER_BYTES:
            yield _frame(number - len(together), together)
            together, size = [], 0
        together.append(chunk)
        size += memoryview(chunk).nbytes
    if together:
        yield _frame(start + len(chunks) - len(together), together)


def _frame(first: int, chunks: Sequence[Payload]) -> Frame:
    return Frame(chunk_header(first), chunks[0] if len(chunks) == 1 else b"".join(chunks))


def chunks_of(frame: Frame, grid: Grid, codec: Codec) -> Iterator[tuple[int, Payload]]:
    """Number and encoded chunk of each in a frame, at least one; the last has any length, and nothing is checked yet.

    Raises Rejected: malformed, unexpected (a chunk that the grid does not have).
    """
    if len(frame.header) != _HEADER.size:
        raise Rejected(Reason.MALFORMED, "the frame is not a chunk")
    (number,) = _HEADER.unpack(frame.header)
    rest = memoryview(frame.payload)
    while True:
        if number >= grid.chunks:
            raise Rejected(Reason.UNEXPECTED, f"there is no chunk {number}")
        size = codec.encoded_size(grid.size(number))
        yield number, rest[:size] if len(rest) > size else rest
        number, rest = number + 1, rest[size:]
        if not rest:
            return
