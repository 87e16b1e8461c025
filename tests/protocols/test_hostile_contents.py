"""Manifests, indices, states and vectors from the network: right to the last bit, or refused."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from protocols.blocks import BLOCK_BYTES, MAX_INDEX_BYTES, BlockIndex, from_bitmap, to_bitmap
from protocols.codecs import CODECS, Codec
from protocols.encoding import digest, encode
from protocols.manifest import MAX_MANIFEST_BYTES, Data, DataParallel, Manifest, Model, Sgd, Shard
from protocols.rejection import Reason
from protocols.round.parts import Grid
from protocols.round.reduction import open_result_chunk
from protocols.state import HEADER_BYTES, ModelState
from tests.protocols.examples import RUN
from tests.protocols.refusals import accepted_or_refused, plain_data, refusal

MANIFEST = Manifest(
    name="hostile",
    model=Model(architecture="mlp", options={"hidden": 8}),
    data=Data(dataset="text", shards=(Shard(name="a.txt", size_bytes=5, digest=digest(b"a")),)),
    training=DataParallel(target_batch=64, optimizer=Sgd(learning_rate=0.1)),
    epochs=3,
)
WIRE = MANIFEST.to_bytes()


def altered(wire: bytes, data: st.DataObject) -> bytes:
    changed = bytearray(wire)
    changed[data.draw(st.integers(0, len(wire) - 1))] ^= data.draw(st.integers(1, 255))
    return bytes(changed)


# -- manifests --------------------------------------------------------------------------------------------------------


def test_manifest_is_that_of_its_run_id() -> None:
    assert Manifest.from_bytes(WIRE, MANIFEST.run_id) == MANIFEST


@given(st.data())
def test_altered_or_truncated_manifest_is_refused(data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(WIRE) - 1))
    refusal(lambda: Manifest.from_bytes(altered(WIRE, data), MANIFEST.run_id))
    assert refusal(lambda: Manifest.from_bytes(WIRE[:cut], MANIFEST.run_id)) is Reason.MALFORMED


@given(st.binary(max_size=512) | plain_data.map(encode))
def test_no_random_data_is_a_manifest(wire: bytes) -> None:
    refusal(lambda: Manifest.from_bytes(wire, MANIFEST.run_id))


def test_manifest_of_another_run_and_oversized_one_are_refused() -> None:
    other = MANIFEST.model_copy(update={"seed": 1})
    assert refusal(lambda: Manifest.from_bytes(other.to_bytes(), MANIFEST.run_id)) is Reason.WRONG_DIGEST
    oversized = bytes(MAX_MANIFEST_BYTES + 1)
    assert refusal(lambda: Manifest.from_bytes(oversized, MANIFEST.run_id)) is Reason.OVERSIZED


def test_manifest_written_in_another_way_is_refused() -> None:
    """Its fields in another order are the same manifest, but not the bytes that the run id names."""
    fields = list(MANIFEST.model_dump().items())[::-1]
    wire = bytes([0x80 + len(fields)]) + b"".join(encode(name) + encode(value) for name, value in fields)
    assert refusal(lambda: Manifest.from_bytes(wire, MANIFEST.run_id)) is Reason.WRONG_DIGEST


@given(st.data(), plain_data)
def test_field_of_a_manifest_of_any_other_value_raises_nothing_but_a_refusal(data: st.DataObject, value: Any) -> None:
    fields = MANIFEST.model_dump() | {data.draw(st.sampled_from(sorted(MANIFEST.model_dump()))): value}
    accepted_or_refused(lambda: Manifest.from_bytes(encode(fields), MANIFEST.run_id))


# -- contents by address ----------------------------------------------------------------------------------------------

CONTENT = bytes(range(256)) * (5 * BLOCK_BYTES // 512)
INDEX = BlockIndex.of([CONTENT])
ADDRESS_DOMAIN = b"peer/1/content\x00"


def address_of(wire: bytes) -> bytes:
    """Under which even a malformed index would be looked for: what a majority of liars may sign."""
    return digest(ADDRESS_DOMAIN, wire)


def test_index_is_that_of_its_address() -> None:
    assert BlockIndex.from_bytes(INDEX.to_bytes(), INDEX.digest) == INDEX


@given(count=st.integers(0, 70), data=st.data())
def test_a_bitmap_tells_the_numbers_it_was_made_of(count: int, data: st.DataObject) -> None:
    numbers = data.draw(st.sets(st.integers(0, count - 1))) if count else set()
    assert from_bitmap(to_bitmap(numbers, count), count) == numbers


@given(bitmap=st.binary(max_size=10), count=st.integers(0, 70))
def test_any_bytes_are_a_bitmap_or_are_refused(bitmap: bytes, count: int) -> None:
    numbers = accepted_or_refused(lambda: from_bitmap(bitmap, count))
    assert numbers is None or to_bitmap(numbers, count) == bitmap


@given(st.data())
def test_altered_index_is_refused(data: st.DataObject) -> None:
    wire = altered(INDEX.to_bytes(), data)
    assert refusal(lambda: BlockIndex.from_bytes(wire, INDEX.digest)) is Reason.WRONG_DIGEST


@given(st.binary(max_size=256) | plain_data.map(encode))
def test_no_random_data_is_an_index_even_at_its_own_address(wire: bytes) -> None:
    index = accepted_or_refused(lambda: BlockIndex.from_bytes(wire, address_of(wire)))
    assert index is None or len(index.blocks) == -(-index.size_bytes // BLOCK_BYTES)


@pytest.mark.parametrize(
    "fields",
    [
        [-1, b""],
        [True, bytes(32)],
        [1.0, bytes(32)],
        [1, bytes(31)],
        [1, ""],
        [0, bytes(32)],
        [2**64 - 1, bytes(32)],
        [1, bytes(32), 0],
        {"a": 1, "b": 2},
        5,
    ],
)
def test_index_that_disagrees_with_itself_is_refused(fields: Any) -> None:
    wire = encode(fields)
    assert refusal(lambda: BlockIndex.from_bytes(wire, address_of(wire))) is Reason.MALFORMED


def test_oversized_index_is_refused() -> None:
    wire = bytes(MAX_INDEX_BYTES + 1)
    assert refusal(lambda: BlockIndex.from_bytes(wire, address_of(wire))) is Reason.OVERSIZED


@given(st.integers(0, 2), st.data())
def test_altered_truncated_or_misplaced_block_is_refused(number: int, data: st.DataObject) -> None:
    block = CONTENT[number * BLOCK_BYTES : (number + 1) * BLOCK_BYTES]
    INDEX.check(number, block)
    position = data.draw(st.integers(0, len(block) - 1))
    changed = block[:position] + bytes([block[position] ^ 1]) + block[position + 1 :]
    for wrong in (changed, block[:position], block + b"\x00", b""):
        assert refusal(lambda wrong=wrong: INDEX.check(number, wrong)) is Reason.WRONG_DIGEST


# -- states -----------------------------------------------------------------------------------------------------------

STATE = ModelState(RUN, 7, np.arange(8, dtype=np.float32), {"momentum": np.ones(8, np.float32)})
STATE_BYTES = b"".join(STATE.buffers())
SHAPE = {"run": RUN, "parameter_count": 8, "slot_names": ("momentum",)}


def state_with(offset: int, piece: bytes) -> bytes:
    return STATE_BYTES[:offset] + piece + STATE_BYTES[offset + len(piece) :]


@given(st.binary(max_size=400) | st.binary(min_size=len(STATE_BYTES), max_size=len(STATE_BYTES)))
def test_random_bytes_are_no_state(data: bytes) -> None:
    refusal(lambda: ModelState.from_buffer(data, **SHAPE))


@given(st.data())
def test_state_with_a_byte_changed_is_another_state_or_refused(data: st.DataObject) -> None:
    state = accepted_or_refused(lambda: ModelState.from_buffer(altered(STATE_BYTES, data), **SHAPE))
    assert state is None or state.digest != STATE.digest


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (STATE_BYTES[:-1], Reason.WRONG_SHAPE),
        (STATE_BYTES + b"\x00", Reason.WRONG_SHAPE),
        (b"", Reason.WRONG_SHAPE),
        (state_with(0, b"\x90"), Reason.MALFORMED),
        (state_with(HEADER_BYTES - 8, b"\xff" * 8), Reason.MALFORMED),
        (state_with(HEADER_BYTES, np.float32("nan").tobytes()), Reason.NON_FINITE),
        (state_with(HEADER_BYTES + 4 * 15, np.float32("-inf").tobytes()), Reason.NON_FINITE),
    ],
)
def test_state_is_refused(data: bytes, reason: Reason) -> None:
    assert refusal(lambda: ModelState.from_buffer(data, **SHAPE)) is reason


def test_state_of_another_run_or_model_is_refused() -> None:
    for changes in ({"run": "other-" + "a" * 26}, {"slot_names": ("moment",)}):
        assert refusal(lambda changes=changes: ModelState.from_buffer(STATE_BYTES, **(SHAPE | changes))) is (
            Reason.MALFORMED
        )
    wider = SHAPE | {"parameter_count": 9}
    assert refusal(lambda: ModelState.from_buffer(STATE_BYTES, **wider)) is Reason.WRONG_SHAPE


# -- vectors ----------------------------------------------------------------------------------------------------------

codecs = st.sampled_from(list(CODECS.values()))
NOT_A_NUMBER = {
    "none": [np.float32(value).tobytes() for value in ("nan", "inf", "-inf")],
    "float16": [np.float16(value).tobytes() for value in ("nan", "inf", "-inf")],
    "int8": [np.float32(value).tobytes() for value in ("nan", "inf", "-inf", "3e38", "-3e38")],  # scales
}


@given(codecs, st.integers(1, 700), st.data())
def test_payload_of_the_right_size_decodes_to_numbers_or_not_at_all(
    codec: Codec, count: int, data: st.DataObject
) -> None:
    size = codec.encoded_size(count)
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    payload = generator.bytes(size)
    values = accepted_or_refused(lambda: codec.decode(payload, count))
    assert values is None or (values.shape == (count,) and values.dtype == np.float32 and np.isfinite(values).all())


@given(codecs, st.integers(1, 700), st.binary(max_size=2000))
def test_payload_of_a_wrong_size_is_refused(codec: Codec, count: int, payload: bytes) -> None:
    if len(payload) != codec.encoded_size(count):
        assert refusal(lambda: codec.decode(payload, count)) is Reason.WRONG_SHAPE


@pytest.mark.parametrize(
    ("name", "piece"), [(name, piece) for name, pieces in NOT_A_NUMBER.items() for piece in pieces]
)
def test_nan_and_infinity_are_refused_wherever_they_stand(name: str, piece: bytes) -> None:
    codec, count = CODECS[name], 600
    good = bytes(codec.encode(np.ones(count, np.float32)))
    last = 4 * 2 if name == "int8" else len(good) - len(piece)
    for offset in (0, last):
        payload = good[:offset] + piece + good[offset + len(piece) :]
        assert refusal(lambda payload=payload: codec.decode(payload, count)) is Reason.NON_FINITE


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS.keys())
def test_result_chunk_has_the_size_of_its_place_in_the_grid(codec: Codec) -> None:
    grid = Grid(1000)
    first = bytes(codec.encode(np.ones(grid.size(0), np.float32)))
    last = bytes(codec.encode(np.ones(grid.size(grid.chunks - 1), np.float32)))
    out, short = np.empty(grid.size(0), np.float32), np.empty(grid.size(grid.chunks - 1), np.float32)
    kept, its_digest = open_result_chunk(first, out, codec)
    assert bytes(kept) == first
    assert its_digest == digest(first)
    assert (out == 1).all()
    assert refusal(lambda: open_result_chunk(last, out, codec)) is Reason.WRONG_SHAPE
    assert refusal(lambda: open_result_chunk(first, short, codec)) is Reason.WRONG_SHAPE
    assert refusal(lambda: open_result_chunk(b"", out, codec)) is Reason.WRONG_SHAPE
    spoiled = NOT_A_NUMBER[codec.name][0] + first[len(NOT_A_NUMBER[codec.name][0]) :]
    assert refusal(lambda: open_result_chunk(spoiled, out, codec)) is Reason.NON_FINITE


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".hidden", "a/b", "a\\b", "\x00", "a\x1b[2Jb", "a\nb", "a\u202eb", "x" * 201, "é" * 101]
)
def test_a_shard_is_named_by_a_plain_file_name(name: str) -> None:
    with pytest.raises(ValidationError):
        Shard(name=name, size_bytes=1, digest=digest(b"a"))
    assert Shard(name="Die Göttliche Komödie (1).txt", size_bytes=1, digest=digest(b"a"))
