import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from protocols.codecs import CODECS, Codec, Int8, codec
from protocols.rejection import Reason, Rejected

finite_float32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
vectors = st.integers(1, 700).flatmap(lambda count: arrays(np.float32, count, elements=finite_float32))
every_codec = pytest.mark.parametrize("each", CODECS.values(), ids=CODECS.keys())


@every_codec
@given(values=vectors)
def test_what_is_encoded_decodes_to_finite_values_of_the_stated_size(each: Codec, values):
    before = values.copy()
    payload = each.encode(values)
    assert memoryview(payload).nbytes == each.encoded_size(len(values))
    decoded = each.decode(payload, len(values))
    assert decoded.dtype == np.float32
    assert decoded.shape == values.shape
    assert np.isfinite(decoded).all()
    assert (values == before).all()


@given(values=vectors)
def test_none_loses_nothing(values):
    assert codec("none").decode(bytes(codec("none").encode(values)), len(values)).tobytes() == values.tobytes()


@given(values=vectors)
def test_float16_rounds_to_the_nearest_half_and_saturates(values):
    expected = np.clip(values, -65504, 65504).astype(np.float16).astype(np.float32)
    decoded = codec("float16").decode(codec("float16").encode(values), len(values))
    assert (decoded == expected).all()


def test_float16_is_what_numpy_makes_of_it_to_the_bit():
    bits = np.random.default_rng(0).integers(0, 2**32, 300_000, np.uint32).view(np.float32)
    near = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)  # every half, and what lies beside it
    halfway = (near.view(np.uint32) + np.uint32(1 << 12)).view(np.float32)
    values = np.concatenate([bits, near, halfway, np.nextafter(halfway, near), np.nextafter(halfway, np.float32(0))])
    values = values[np.isfinite(values)]
    halves = np.clip(values, -65504, 65504).astype("<f2")
    payload = codec("float16").encode(values)
    assert bytes(payload) == halves.tobytes()
    assert codec("float16").decode(payload, len(values)).tobytes() == halves.astype(np.float32).tobytes()


def test_float16_never_makes_infinity_of_a_number():
    values = np.array([65504, 65519.99, 65520, 1e30, -65520, np.finfo(np.float32).min], np.float32)
    assert (np.abs(codec("float16").decode(codec("float16").encode(values), 6)) == 65504).all()


@given(values=st.integers(1, 700).flatmap(lambda n: arrays(np.float32, n, elements=st.floats(-1e6, 1e6, width=32))))
def test_int8_is_within_half_a_step_of_its_block(values):
    decoded = codec("int8").decode(codec("int8").encode(values), len(values))
    for start in range(0, len(values), Int8.BLOCK):
        block = slice(start, start + Int8.BLOCK)
        largest = float(np.abs(values[block]).max())
        error = np.abs(decoded[block].astype(np.float64) - values[block])
        assert error.max() <= 0.5001 * largest / 127 + 1e-43  # subnormal scales are coarse


def test_int8_rounds_half_to_even():
    values = np.array([127, 0.5, 1.5, 2.5, -0.5, -1.5], np.float32)  # the scale is 1
    assert codec("int8").decode(codec("int8").encode(values), 6).tolist() == [127, 0, 2, 2, 0, -2]


def test_int8_of_zeros_and_of_the_smallest_and_largest_floats_stays_finite():
    for extreme in (0.0, 1e-45, 3e-43, float(np.finfo(np.float32).max)):
        values = np.full(300, extreme, np.float32)
        decoded = codec("int8").decode(codec("int8").encode(values), 300)
        assert np.allclose(decoded, values, rtol=0.01, atol=1e-42)


def test_int8_of_a_vector_cut_at_whole_blocks_equals_int8_of_the_whole():
    values = np.random.default_rng(1).standard_normal(1000).astype(np.float32)
    each = codec("int8")
    whole = each.decode(each.encode(values), 1000)
    pieces = [values[:512], values[512:]]
    assert np.concatenate([each.decode(each.encode(p), len(p)) for p in pieces]).tobytes() == whole.tobytes()


@every_codec
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("position", [0, 255, 256, 299])
def test_encoding_what_is_not_finite_is_an_error(each: Codec, poison, position):
    values = np.zeros(300, np.float32)
    values[position] = poison
    with pytest.raises(ValueError, match="NaN or infinity"):
        each.encode(values)


@every_codec
@given(payload=st.binary(max_size=2000), count=st.integers(0, 1500))
def test_any_bytes_decode_to_finite_values_or_are_refused(each: Codec, payload, count):
    if len(payload) != each.encoded_size(count):
        with pytest.raises(Rejected, match="wrong_shape"):
            each.decode(payload, count)
    else:
        assert finite_or_refused(each, payload, count)


@every_codec
@given(data=st.data(), count=st.integers(1, 600))
def test_bytes_of_the_right_length_decode_to_finite_values_or_are_refused(each: Codec, data, count):
    size = each.encoded_size(count)
    payload = data.draw(st.binary(min_size=size, max_size=size))
    assert finite_or_refused(each, memoryview(payload), count)


def finite_or_refused(each, payload, count):
    try:
        decoded = each.decode(payload, count)
    except Rejected as refusal:
        return refusal.reason == Reason.NON_FINITE
    return decoded.shape == (count,) and np.isfinite(decoded).all()


@pytest.mark.parametrize("scale", [np.nan, np.inf, -np.inf, 3e38, -3e38])
def test_int8_refuses_a_scale_that_makes_elements_infinite(scale):
    payload = bytearray(codec("int8").encode(np.ones(300, np.float32)))
    payload[4:8] = np.float32(scale).tobytes()
    payload[8:] = bytes([0x80] * 300)
    with pytest.raises(Rejected, match="scale"):
        codec("int8").decode(payload, 300)


def test_the_bytes_of_each_codec_are_fixed():
    """Peers of different versions and machines exchange these."""
    values = np.array([1.0, -2.0, 0.25], np.float32)
    assert bytes(codec("none").encode(values)).hex() == "0000803f000000c00000803e"
    assert bytes(codec("float16").encode(values)).hex() == "003c00c00034"
    assert bytes(codec("int8").encode(values)).hex() == "0402813c408110"


def test_an_unknown_codec_is_named_in_the_error():
    with pytest.raises(ValueError, match=r"'float8'.*none, float16, int8"):
        codec("float8")
