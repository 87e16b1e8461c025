"""Frames survive any cutting of the byte stream; bad lengths are refused before memory is taken for them."""

import random
import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dht.framing import END_OF_STREAM_BYTES, FIRST_BYTES, GROWTH, End, FrameDecoder, encode_prefix
from dht.interfaces import MAX_HEADER_BYTES, MAX_PAYLOAD_BYTES, Frame
from protocols.rejection import Rejected


def feed(decoder: FrameDecoder, data: bytes, cuts: list[int]) -> list[Frame | End]:
    """Gives `data` to the decoder, at most cuts[i] bytes at a time."""
    items = []
    turn = 0
    while data:
        target = decoder.buffer()
        assert len(target) > 0
        count = min(len(target), len(data), cuts[turn % len(cuts)])
        target[:count] = data[:count]
        data = data[count:]
        turn += 1
        if (item := decoder.received(count)) is not None:
            items.append(item)
    return items


def encode(frame: Frame) -> bytes:
    prefix, payload = encode_prefix(frame)
    return prefix + payload


@given(
    st.lists(st.tuples(st.binary(max_size=50), st.binary(max_size=200)), max_size=5),
    st.lists(st.integers(1, 60), min_size=1, max_size=20),
)
def test_frames_come_out_as_they_went_in(contents: list[tuple[bytes, bytes]], cuts: list[int]) -> None:
    frames = [Frame(header, payload) for header, payload in contents]
    data = b"".join(encode(frame) for frame in frames) + END_OF_STREAM_BYTES
    *received, end = feed(FrameDecoder(), data, cuts)
    assert end is End.OF_STREAM
    assert [(frame.header, bytes(frame.payload)) for frame in received if isinstance(frame, Frame)] == contents


@given(st.binary(max_size=400), st.lists(st.integers(1, 60), min_size=1, max_size=20))
def test_random_bytes_are_frames_or_refused(data: bytes, cuts: list[int]) -> None:
    decoder = FrameDecoder(max_payload_bytes=100, max_header_bytes=50)
    with suppress(Rejected):  # oversized; anything else would be an error
        for item in feed(decoder, data, cuts):
            assert item is End.OF_STREAM or (len(item.header) <= 50 and len(item.payload) <= 100)


@pytest.mark.parametrize(
    ("header", "payload"),
    [(0, MAX_PAYLOAD_BYTES + 1), (MAX_HEADER_BYTES + 1, 0), (0, 2**32 - 1), (2**32 - 1, 0), (2**32 - 1, 2**32 - 2)],
)
def test_lengths_above_the_limits_are_refused_at_the_prefix(header: int, payload: int) -> None:
    with pytest.raises(Rejected, match="oversized"):
        feed(FrameDecoder(), struct.pack(">II", header, payload), [8])


def test_memory_grows_with_what_comes_in_not_with_what_is_announced() -> None:
    taken: list[int] = []

    def allocate(size: int) -> bytearray:
        taken.append(size)
        return bytearray(size)

    decoder = FrameDecoder(allocate=allocate)
    payload = random.Random(1).randbytes(5_000_000)
    data = encode(Frame(b"head", payload))
    received = 0
    frame = None
    while frame is None:
        target = decoder.buffer()
        target[:] = data[received : received + len(target)]
        received += len(target)
        frame = decoder.received(len(target))
        assert sum(taken) <= max(FIRST_BYTES, 2 * GROWTH * received)
    assert isinstance(frame, Frame)
    assert (frame.header, frame.payload) == (b"head", payload)
    assert taken[-1] == len(payload) + len(b"head")  # received into its own memory, uncopied from then on


def test_frames_above_the_limits_are_not_sent() -> None:
    with pytest.raises(ValueError, match="cut it into several"):
        encode_prefix(Frame(payload=bytes(MAX_PAYLOAD_BYTES + 1)))
