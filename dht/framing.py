"""Frames on a byte stream: 4 bytes header length, 4 bytes payload length (big endian), header, payload.

The end of a stream is a frame of its own (both lengths 2³² − 1), so that a broken connection, which is an end without
that mark, cannot pass for an orderly one. The decoder does no I/O: it says where the next bytes go, so that they are
received straight into the frame's own memory, which grows with what comes in. It refuses a length above its limit
before it allocates anything.
"""

import struct
from collections.abc import Callable
from enum import Enum, auto

from dht.interfaces import MAX_HEADER_BYTES, MAX_PAYLOAD_BYTES, Frame
from protocols.rejection import Reason, Rejected

_PREFIX = struct.Struct(">II")
PREFIX_BYTES = _PREFIX.size
_END_LENGTH = 2**32 - 1
FIRST_BYTES = 513 * 1024
"""A frame gets so much memory for its announcement, and then GROWTH times what has come in: eight bytes that announce
megabytes must not cost us megabytes, and the chunks of a round (512 KiB at most) are never copied."""
GROWTH = 16
END_OF_STREAM_BYTES = _PREFIX.pack(_END_LENGTH, _END_LENGTH)


class End(Enum):
    """The other side has closed in order."""

    OF_STREAM = auto()


def encode_prefix(frame: Frame) -> tuple[bytes, memoryview]:
    """The bytes before the payload, and the payload as bytes, uncopied.

    Raises ValueError where the frame exceeds the limits of a stream.
    """
    payload = memoryview(frame.payload).cast("B")
    if len(frame.header) > MAX_HEADER_BYTES or len(payload) > MAX_PAYLOAD_BYTES:
        raise ValueError(
            f"a frame of {len(frame.header)} + {len(payload)} bytes exceeds the limits of a stream, "
            f"{MAX_HEADER_BYTES} + {MAX_PAYLOAD_BYTES}; cut it into several"
        )
    return _PREFIX.pack(len(frame.header), len(payload)) + frame.header, payload


class FrameDecoder:
    """Fill `buffer()`, say so with `received(count)`, and get the frame that this completes, if any."""

    def __init__(
        self,
        max_payload_bytes: int = MAX_PAYLOAD_BYTES,
        max_header_bytes: int = MAX_HEADER_BYTES,
        allocate: Callable[[int], bytearray] = bytearray,
    ) -> None:
        """`allocate`: gives the memory of a frame, of exactly as many bytes as it is asked for."""
        self._max_payload_bytes = max_payload_bytes
        self._allocate = allocate
        self._max_header_bytes = max_header_bytes
        self._prefix = memoryview(bytearray(PREFIX_BYTES))
        self._expect_prefix()

    def buffer(self) -> memoryview:
        """Where the next bytes belong; never empty, and never beyond the frame."""
        return self._target[self._filled :]

    def received(self, count: int) -> Frame | End | None:
        """Takes the `count` bytes written into `buffer()`. Raises Rejected (oversized), after which it is unusable."""
        self._filled += count
        if self._filled < len(self._target):
            return None
        if self._header_bytes is None:
            return self._begin_frame()
        if self._filled < self._frame_bytes:
            self._grow()
            return None
        return self._finish_frame(self._header_bytes)

    def _expect_prefix(self) -> None:
        self._target = self._prefix
        self._filled = 0
        self._header_bytes: int | None = None
        self._frame_bytes = 0

    def _begin_frame(self) -> Frame | End | None:
        header_bytes, payload_bytes = _PREFIX.unpack(self._prefix)
        if header_bytes == payload_bytes == _END_LENGTH:
            self._expect_prefix()
            return End.OF_STREAM
        if header_bytes > self._max_header_bytes:
            raise Rejected(Reason.OVERSIZED, f"a header of {header_bytes} bytes exceeds {self._max_header_bytes}")
        if payload_bytes > self._max_payload_bytes:
            raise Rejected(Reason.OVERSIZED, f"a payload of {payload_bytes} bytes exceeds {self._max_payload_bytes}")
        if header_bytes + payload_bytes == 0:
            self._expect_prefix()
            return Frame()
        self._frame_bytes = header_bytes + payload_bytes
        self._target = memoryview(self._allocate(min(self._frame_bytes, FIRST_BYTES)))
        self._filled = 0
        self._header_bytes = header_bytes
        return None

    def _grow(self) -> None:
        larger = memoryview(self._allocate(min(self._frame_bytes, GROWTH * self._filled)))
        larger[: self._filled] = self._target
        self._target = larger

    def _finish_frame(self, header_bytes: int) -> Frame:
        body = self._target
        self._expect_prefix()
        return Frame(header=bytes(body[:header_bytes]), payload=body[header_bytes:])


class Discarder:
    """Stands in for a decoder where nothing is expected any more: takes and forgets whatever comes."""

    def __init__(self) -> None:
        self._scratch = memoryview(bytearray(64 * 1024))

    def buffer(self) -> memoryview:
        return self._scratch

    def received(self, count: int) -> None:
        pass
