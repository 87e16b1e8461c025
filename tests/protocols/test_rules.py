import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydantic import ValidationError

from protocols.aggregation import make_rule
from protocols.manifest import Averaging
from protocols.rules import COORDINATE_WISE, rule, rule_of

finite_float32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
ROBUST = [name for name in COORDINATE_WISE if name != "sign_majority"]
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
    with pytest.raises(ValueError, match="median"):
        rule("mean", byzantine=1)


@pytest.mark.parametrize("name", ROBUST)
def test_a_robust_rule_stays_among_the_honest(name):
    random = np.random.default_rng(1)
    honest = random.normal(size=(5, 700)).astype(np.float32)
    for wrong in (np.float32(3e38), np.float32(-1e3)):
        rows = [*honest, np.full(700, wrong), np.full(700, wrong)]
        result = rule(name, byzantine=2).aggregate(rows, [1] * 7)
        assert result.dtype == np.float32
        assert (result >= honest.min(axis=0)).all()
        assert (result <= honest.max(axis=0)).all()


@pytest.mark.parametrize("name", ROBUST)
def test_a_robust_rule_counts_every_member_alike_and_who_has_no_sample_not_at_all(name):
    rows = np.random.default_rng(2).normal(size=(5, 300)).astype(np.float32)
    alike = rule(name, byzantine=1).aggregate(rows, [1] * 5)
    assert (rule(name, byzantine=1).aggregate(rows, [1000, 1, 2, 3, 4]) == alike).all()
    with_idle = np.vstack([rows, np.full((1, 300), 1e30, np.float32)])
    assert (rule(name, byzantine=1).aggregate(with_idle, [1, 1, 1, 1, 1, 0]) == alike).all()


@pytest.mark.parametrize("name", ROBUST)
@pytest.mark.parametrize("present", [1, 2, 3, 4])
def test_a_robust_rule_serves_what_few_have_delivered(name, present):
    """It withstands then what so few can."""
    rows = np.random.default_rng(3).normal(size=(present, 300)).astype(np.float32)
    withstood = (present - 1) // 2
    if withstood:
        rows[:withstood] = 1e9
    result = rule(name, byzantine=7).aggregate(rows, [1] * present)
    assert np.abs(result).max() <= np.abs(rows[withstood:]).max()


@pytest.mark.parametrize(
    ("averaging", "message"),
    [
        ({"rule": "bulyan", "byzantine": 1, "quorum": 6}, "4f"),
        ({"rule": "bucketing | median", "byzantine": 2, "quorum": 7}, "honest majority"),
        ({"rule": "median", "options": {"tau": 1.0}}, "tau"),
        ({"rule": "krum", "options": {"tau": 1.0}}, "tau"),
        ({"rule": "nnm"}, "one rule"),
        ({"rule": "mean", "byzantine": 1, "quorum": 5}, "choose another"),
    ],
)
def test_a_manifest_whose_rule_cannot_serve_says_why(averaging, message):
    with pytest.raises(ValueError, match=message):
        rule_of(Averaging(**averaging))


def test_a_rule_may_be_written_with_or_without_spaces():
    assert Averaging(rule="nnm|median") == Averaging(rule="nnm  |median ") == Averaging(rule="nnm | median")


def test_a_quorum_has_an_honest_majority():
    with pytest.raises(ValidationError, match="at least 5 have to be there"):
        Averaging(rule="median", byzantine=2, quorum=4)


def test_parts_of_one_rule_are_the_rule_on_the_whole():
    rows = np.random.default_rng(4).normal(size=(7, 900)).astype(np.float32)
    rows[:2] += 5
    made = rule("nnm | geometric_median", byzantine=2)
    parts = [rows[:, :300], rows[:, 300:]]
    plan = made.plan(sum(made.observe(part) for part in parts))
    whole = make_rule("nnm | geometric_median", f=2)(rows)
    np.testing.assert_allclose(np.concatenate([plan.apply(part) for part in parts]), whole, rtol=1e-5, atol=1e-6)


def test_an_unknown_rule_is_named_in_the_error():
    with pytest.raises(ValueError, match=r"'average'.*mean"):
        rule("average")
