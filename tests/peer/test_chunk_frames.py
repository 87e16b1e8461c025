"""Chunks in frames: several small ones travel together, and what comes out is what went in, in order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dht.interfaces import Frame
from peer.rounds.chunk_frames import TOGETHER_BYTES, chunk_frames, chunk_header, chunks_of
from protocols.codecs import CODECS, codec
from protocols.rejection import Reason, Rejected
from protocols.round.parts import Grid
from protocols.round.reduction import EncodedUpdate

NONE = codec("none")


@given(st.integers(1, 300_000), st.sampled_from(sorted(CODECS)), st.data())
def test_chunks_come_out_as_they_went_in(count: int, name: str, data: st.DataObject) -> None:
    update = EncodedUpdate(np.arange(count, dtype=np.float32), codec(name))
    start = data.draw(st.integers(0, update.grid.chunks - 1))
    stop = data.draw(st.integers(start, update.grid.chunks))
    frames = list(chunk_frames(update.chunks[start:stop], start))
    found = [each for frame in frames for each in chunks_of(frame, update.grid, codec(name))]
    assert [number for number, _ in found] == list(range(start, stop))
    assert [bytes(payload) for _, payload in found] == [bytes(chunk) for chunk in update.chunks[start:stop]]


def test_small_chunks_travel_together_and_large_ones_alone_and_uncopied() -> None:
    small = EncodedUpdate(np.zeros(64 * 256, np.float32), NONE)
    assert [memoryview(frame.payload).nbytes for frame in chunk_frames(small.chunks, 0)] == [TOGETHER_BYTES]
    large = EncodedUpdate(np.zeros(64 * TOGETHER_BYTES // 4, np.float32), NONE)
    for frame, chunk in zip(chunk_frames(large.chunks, 0), large.chunks, strict=True):
        assert frame.payload is chunk


@pytest.mark.parametrize(
    ("reason", "frame"),
    [
        (Reason.MALFORMED, Frame(b"", b"\x00" * 1024)),
        (Reason.MALFORMED, Frame(b"\x00" * 5, b"\x00" * 1024)),
        (Reason.UNEXPECTED, Frame(chunk_header(4), b"\x00" * 1024)),
        (Reason.UNEXPECTED, Frame(chunk_header(2**32 - 1), b"")),
        (Reason.UNEXPECTED, Frame(chunk_header(3), b"\x00" * 1024)),
    ],
    ids=["no number", "a long number", "beyond the grid", "far beyond", "goes on beyond"],
)
def test_frames_that_no_grid_has_are_refused(reason: Reason, frame: Frame) -> None:
    with pytest.raises(Rejected) as refused:
        list(chunks_of(frame, Grid(1000), NONE))
    assert refused.value.reason is reason


def test_a_cut_or_empty_frame_yields_a_chunk_that_the_codec_refuses() -> None:
    assert [(number, len(payload)) for number, payload in chunks_of(Frame(chunk_header(1), b""), Grid(1000), NONE)] == [
        (1, 0)
    ]
    cut = Frame(chunk_header(0), b"\x00" * 1500)
    assert [(number, len(payload)) for number, payload in chunks_of(cut, Grid(1000), NONE)] == [(0, 1024), (1, 476)]
