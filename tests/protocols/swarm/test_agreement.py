"""Two machines that do the same work agree; who changes its answer to any effect does not."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.activations import TensorBounds, decode_tensor, encode_tensor
from protocols.swarm.agreement import Product, agree, tolerance_of

TOLERANCE = 0.01
CODECS = ["none", "float16", "int8"]
seeds = st.integers(0, 2**32 - 1)


def tensor(seed: int, samples: int = 8, width: int = 64) -> np.ndarray:
    """With samples of very different lengths, as the gradients of a trained model have them."""
    random = np.random.default_rng(seed)
    lengths = np.exp(random.standard_normal((samples, 1)))
    return (lengths * random.standard_normal((samples, width))).astype(np.float32)


def travelled(values: np.ndarray, codec: str) -> Product:
    header, payload = encode_tensor(values, codec)
    return Product(decode_tensor(header, payload, [TensorBounds.exactly(values.shape)]), None)


def same(one: np.ndarray, other: np.ndarray, codec: str = "none") -> bool:
    forth, back = (
        agree(*pair, tolerance_of(TOLERANCE, codec))
        for pair in [
            (travelled(one, codec), travelled(other, codec)),
            (travelled(other, codec), travelled(one, codec)),
        ]
    )
    assert forth == back
    return forth


@given(seed=seeds, codec=st.sampled_from(CODECS))
def test_what_machines_round_differently_is_the_same(seed: int, codec: str) -> None:
    values = tensor(seed)
    noise = np.random.default_rng(seed + 1).standard_normal(values.shape).astype(np.float32)
    assert same(values, values * (1 + np.float32(1e-4) * noise), codec)


@given(seed=seeds, codec=st.sampled_from(CODECS))
def test_one_sample_may_differ_by_what_a_unit_at_its_kink_makes(seed: int, codec: str) -> None:
    values = tensor(seed)
    other = values.copy()
    typical = np.linalg.norm(values) / math.sqrt(len(values))
    weights = np.random.default_rng(seed + 1).standard_normal(values.shape[1])
    other[seed % len(values)] += (0.5 * typical * weights / np.linalg.norm(weights)).astype(np.float32)
    assert same(values, other, codec)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(
    "lie",
    [
        lambda values: -values,
        lambda values: values * np.float32(1.5),
        np.zeros_like,
        lambda values: tensor(99),
        lambda values: np.roll(values, 1, axis=0),
        lambda values: values + np.float32(0.1) * tensor(7),
    ],
    ids=["turned round", "longer", "nothing", "something else", "of other samples", "noise"],
)
def test_a_lie_is_not_the_same(lie: object, codec: str) -> None:
    values = tensor(3)
    assert not same(values, lie(values), codec)


@given(seed=seeds, factor=st.floats(3, 1e6))
def test_one_sample_cannot_be_made_long(seed: int, factor: float) -> None:
    values = tensor(seed)
    longest = int(np.linalg.norm(values, axis=1).argmax())
    other = values.copy()
    other[longest] *= np.float32(factor)
    assert not same(values, other)


def test_of_few_samples_none_may_differ() -> None:
    values = tensor(1, samples=3)
    other = values.copy()
    other[0] = 0
    assert not same(values, other)


@pytest.mark.parametrize("shape", [(8, 63), (7, 64), (8, 64, 1)])
def test_another_shape_is_not_the_same(shape: tuple[int, ...]) -> None:
    assert not agree(Product(np.zeros((8, 64), np.float32), None), Product(np.zeros(shape, np.float32), None), 0.5)


def test_rounding_is_nothing_where_there_is_next_to_nothing() -> None:
    assert same(np.float32(1e-9) * tensor(1), np.float32(1e-9) * tensor(2))
    assert not same(np.float32(1e-5) * tensor(1), np.float32(1e-5) * tensor(2))


def test_nothing_is_the_same_as_nothing() -> None:
    zeros = Product(np.zeros((8, 4), np.float32), None)
    assert agree(zeros, zeros, TOLERANCE)
    assert agree(Product(None, None), Product(None, None), TOLERANCE)
    assert not agree(zeros, Product(None, None), TOLERANCE)
    assert not Product(None, None).is_something
    assert Product(None, 0.0).is_something


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (2.0, 2.0, True),
        (2.0, 2.001, True),
        (2.0, 2.1, False),
        (0.0, 1e-6, True),
        (2.0, None, False),
        (0.0, None, False),
    ],
)
def test_losses_are_compared_too(one: float | None, other: float | None, expected: bool) -> None:
    values = tensor(0)
    assert agree(Product(values, one), Product(values, other), TOLERANCE) is expected
    assert agree(Product(values, other), Product(values, one), TOLERANCE) is expected
