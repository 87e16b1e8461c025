import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from protocols.rules import rule

finite_float32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
mean = rule("mean").aggregate


def row_count_and_rows(elements):
    shapes = st.tuples(st.integers(1, 8), st.integers(1, 50))
    return shapes.flatmap(lambda shape: arrays(np.float32, shape, elements=elements))


@given(rows=row_count_and_rows(st.floats(-1e3, 1e3, width=32)), data=st.data())
def test_mean_is_the_weighted_mean(rows, data):
    weights = data.draw(st.lists(st.integers(1, 10_000), min_size=len(rows), max_size=len(rows)))
    expected = np.average(rows.astype(np.float64), axis=0, weights=weights)
    assert np.allclose(mean(rows, weights), expected, rtol=1e-5, atol=1e-2)


@given(rows=row_count_and_rows(finite_float32))
def test_mean_of_finite_rows_is_finite(rows):
    assert np.isfinite(mean(rows, [1.0] * len(rows))).all()


def test_mean_of_the_largest_floats_is_finite():
    largest = np.full(4, np.finfo(np.float32).max, np.float32)
    for count in range(1, 65):
        assert np.isfinite(mean([largest] * count, [3.0] * count)).all()


def test_mean_equals_its_definition_to_the_bit_whatever_the_length():
    """One multiplication and one addition at a time, in the order of the rows, as an auditor would do it."""
    generator = np.random.default_rng(0)
    rows = generator.standard_normal((5, 100_003)).astype(np.float32)
    weights = [3, 1, 4, 1, 5]
    shares = [np.float32(weight / 14) for weight in weights]
    for column in (0, 1, 65_535, 65_536, 100_002):
        expected = rows[0, column] * shares[0]
        for row, share in zip(rows[1:], shares[1:], strict=True):
            expected = np.float32(expected + np.float32(row[column] * share))
        assert mean(rows, weights)[column] == expected


def test_mean_of_parts_is_the_part_of_the_mean():
    rows = np.random.default_rng(0).standard_normal((3, 70_000)).astype(np.float32)
    whole = mean(list(rows), [1, 2, 3])
    parts = [mean([row[piece] for row in rows], [1, 2, 3]) for piece in (slice(0, 777), slice(777, None))]
    assert np.concatenate(parts).tobytes() == whole.tobytes()


def test_mean_of_one_row_is_that_row():
    row = np.array([1e-45, -0.0, 3.4e38], np.float32)
    assert mean([row], [17]).tobytes() == row.tobytes()


def test_mean_leaves_its_inputs_alone():
    rows = np.ones((2, 3), np.float32)
    mean(rows, [1, 2])
    assert (rows == 1).all()


@pytest.mark.parametrize("weights", [[], [1], [0, 0], [1, -1], [1, float("nan")], [1, float("inf")]])
def test_mean_refuses_weights_that_are_none(weights):
    with pytest.raises(ValueError, match="weights"):
        mean(np.ones((2, 3), np.float32), weights)


def test_mean_withstands_no_attacker():
    assert rule("mean").supports(members=4, byzantine=0)
    assert not rule("mean").supports(members=64, byzantine=1)


def test_an_unknown_rule_is_named_in_the_error():
    with pytest.raises(ValueError, match=r"'average'.*mean"):
        rule("average")
