import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pydantic import ValidationError

from protocols.activations import TensorBounds, TensorHeader, decode_tensor, encode_tensor, relative_error
from protocols.rejection import Reason
from tests.protocols.refusals import accepted_or_refused, plain_data, refusal

BATCH, LENGTH, WIDTH = range(1, 5), range(1, 9), range(6, 7)
ACTIVATIONS = TensorBounds((BATCH, LENGTH, WIDTH))
TOKENS = TensorBounds((BATCH, LENGTH), below=300)
IMAGES = TensorBounds((BATCH, range(12, 13)), flat=True)

shapes = array_shapes(max_dims=4, max_side=12)
floats = shapes.flatmap(lambda shape: arrays(np.float32, shape, elements=st.floats(-1e4, 1e4, width=32)))
whole = shapes.flatmap(lambda shape: arrays(np.int64, shape, elements=st.integers(0, 2**62)))


def headers():
    encodings = st.sampled_from(["none", "float16", "int8", "uint8", "uint16", "int32", "int64"])
    sizes = st.lists(st.integers(1, 2**31), max_size=8) | array_shapes(max_dims=3, max_side=8).map(list)
    return st.builds(TensorHeader, encoding=encodings, shape=sizes)


def exactly(values):
    return TensorBounds(TensorBounds.exactly(values.shape).sizes, below=2**63 if values.dtype == np.int64 else None)


DENORMAL = np.finfo(np.float32).tiny
"""What is smaller may be lost: a 127th of it is no float any more."""


@given(values=floats, codec=st.sampled_from(["none", "float16", "int8"]))
def test_activations_arrive_in_their_shape_as_exactly_as_their_codec_is(values, codec):
    header, payload = encode_tensor(values, codec)
    decoded = decode_tensor(TensorHeader.model_validate(header.model_dump()), bytes(payload), [exactly(values)])
    assert decoded.shape == values.shape
    assert decoded.dtype == np.float32
    assert decoded.flags.writeable
    largest = np.abs(values).max()
    bounds = {"none": 0, "float16": largest / 2048 + 1e-7, "int8": largest / 253 + DENORMAL}
    assert np.abs(decoded - values).max() <= bounds[codec]


@given(values=whole)
def test_whole_numbers_arrive_as_they_were(values):
    header, payload = encode_tensor(values)
    decoded = decode_tensor(header, payload, [exactly(values)])
    assert decoded.dtype == np.int64
    assert np.array_equal(decoded, values)


@pytest.mark.parametrize(
    ("values", "encoding"),
    [
        ([0, 255], "uint8"),
        ([0, 256], "uint16"),
        ([65_535], "uint16"),
        ([65_536], "int32"),
        ([-1, 3], "int32"),
        ([2**31], "int64"),
    ],
)
def test_whole_numbers_travel_as_narrow_as_they_can(values, encoding):
    header, payload = encode_tensor(np.array(values))
    assert header.encoding == encoding
    assert len(payload) == len(values) * np.dtype(encoding).itemsize


def test_tensors_that_are_views_with_gaps_travel_as_they_look():
    values = np.arange(48, dtype=np.float32).reshape(2, 4, 6)
    for view in (values.transpose(2, 0, 1), values[:, ::2]):
        assert np.array_equal(decode_tensor(*encode_tensor(view), [TensorBounds.exactly(view.shape)]), view)


@pytest.mark.parametrize("values", [np.zeros(3), np.zeros(3, np.int32), np.zeros(0, np.int64), np.zeros((2, 0), "f4")])
def test_what_cannot_travel_is_an_error(values):
    with pytest.raises(ValueError, match=r"does not travel|greater than or equal to 1"):
        encode_tensor(values)


def test_activations_that_are_not_finite_do_not_travel():
    with pytest.raises(ValueError, match="NaN"):
        encode_tensor(np.array([1, np.nan], np.float32), "int8")


@pytest.mark.parametrize(
    ("bounds", "shape", "allowed"),
    [
        (ACTIVATIONS, (4, 8, 6), True),
        (ACTIVATIONS, (1, 1, 6), True),
        (ACTIVATIONS, (5, 8, 6), False),
        (ACTIVATIONS, (4, 9, 6), False),
        (ACTIVATIONS, (4, 8, 5), False),
        (ACTIVATIONS, (4, 48), False),
        (ACTIVATIONS, (), False),
        (IMAGES, (4, 1, 3, 4), True),
        (IMAGES, (4, 12), True),
        (IMAGES, (12, 4), False),
        (IMAGES, (4, 3, 3), False),
        (IMAGES, (), False),
    ],
)
def test_bounds_say_which_shapes_are_taken(bounds, shape, allowed):
    assert bounds.allow(shape) == allowed


def test_no_accepted_payload_is_larger_than_the_bounds_say():
    largest = encode_tensor(np.full((4, 8, 6), 1, np.float32))[1]
    assert memoryview(largest).nbytes == ACTIVATIONS.most_bytes
    assert TOKENS.most_bytes == 4 * 8 * 8


@pytest.mark.parametrize(
    ("encoding", "shape", "payload", "reason"),
    [
        ("none", (1, 2, 6), bytes(47), Reason.WRONG_SHAPE),
        ("int8", (1, 2, 6), bytes(48), Reason.WRONG_SHAPE),
        ("none", (1, 2, 5), bytes(40), Reason.WRONG_SHAPE),
        ("none", (2**31,) * 8, b"", Reason.WRONG_SHAPE),
        ("none", (1, 2), bytes(8), Reason.WRONG_SHAPE),
        ("uint8", (1, 2, 6), bytes(12), Reason.WRONG_SHAPE),
        ("none", (1, 1, 6), b"\x00\x00\xc0\x7f" * 6, Reason.NON_FINITE),
        ("float16", (1, 1, 6), b"\x00\x7c" * 6, Reason.NON_FINITE),
        ("uint8", (1, 2), bytes(3), Reason.WRONG_SHAPE),
        ("uint8", (1, 9), bytes(9), Reason.WRONG_SHAPE),
        ("uint16", (1, 2), b"\x00\x00\x2c\x01", Reason.MALFORMED),
        ("int32", (1, 1), b"\xff\xff\xff\xff", Reason.MALFORMED),
        ("int64", (1, 1), b"\x9c" + b"\xff" * 7, Reason.MALFORMED),  # −100: torch's label for "do not count this"
    ],
)
def test_hostile_tensors_are_refused(encoding, shape, payload, reason):
    header = TensorHeader(encoding=encoding, shape=shape)
    assert refusal(lambda: decode_tensor(header, payload, [ACTIVATIONS, TOKENS])) == reason


@given(header=headers(), payload=st.binary(max_size=200))
def test_whatever_arrives_is_refused_or_within_the_bounds(header, payload):
    decoded = accepted_or_refused(lambda: decode_tensor(header, payload, [ACTIVATIONS, TOKENS, IMAGES]))
    if decoded is None:
        return
    assert decoded.nbytes <= 8 * len(payload)
    if decoded.dtype == np.int64:
        assert TOKENS.allow(decoded.shape)
        assert 0 <= decoded.min() <= decoded.max() < 300
    else:
        assert ACTIVATIONS.allow(decoded.shape) or IMAGES.allow(decoded.shape)
        assert np.isfinite(decoded).all()


@given(fields=st.fixed_dictionaries({"encoding": plain_data, "shape": plain_data}))
def test_a_header_is_what_it_must_be_or_invalid(fields):
    try:
        header = TensorHeader.model_validate(fields)
    except ValidationError:
        return
    assert len(header.shape) <= 8


@pytest.mark.parametrize("shape", [[0], [-1], [2**31 + 1], [True], [1.0], [1] * 9])
def test_a_header_has_no_sizes_that_are_none(shape):
    with pytest.raises(ValidationError):
        TensorHeader(encoding="none", shape=shape)


def test_the_error_of_a_codec_is_measured_against_the_length_of_the_original():
    assert relative_error(np.array([3, 4], "f4"), np.array([3, 4], "f4")) == 0
    assert relative_error(np.array([[3], [4]], "f4"), np.array([[0], [0]], "f4")) == 1
    assert relative_error(np.zeros(2, "f4"), np.zeros(2, "f4")) == 0
    assert relative_error(np.zeros(2, "f4"), np.ones(2, "f4")) == math.inf
    activations = np.random.default_rng(1).standard_normal((4, 64, 64)).astype(np.float32)
    header, payload = encode_tensor(activations, "int8")
    assert 0.001 < relative_error(activations, decode_tensor(header, payload, [exactly(activations)])) < 0.01
