import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.aggregation import make_rule
from tests.protocols.aggregation.examples import ROBUST, SPECS, TRANSLATES, inputs, most

seeds = st.integers(0, 2**20)
sizes = st.integers(3, 20)
few = settings(derandomize=True, max_examples=10, deadline=None)
# the order decides among what is equally near or nearest, among subsets, of the own row and of the buckets
ORDERED = ("krum", "multi_krum", "bulyan", "mda", "monna", "bucketing | krum", "clipping | nnm | meamed")
PERMUTES = tuple(spec for spec in SPECS if spec not in ORDERED)


@pytest.mark.parametrize("spec", PERMUTES)
@few
@given(n=sizes, seed=seeds)
def test_the_order_of_the_rows_does_not_matter(spec, n, seed):
    f = most(spec, n)
    if f is None:
        return
    x = inputs("random", n, f, 12, seed)
    shuffled = x[np.random.default_rng(seed).permutation(n)]
    assert np.allclose(make_rule(spec, f)(shuffled), make_rule(spec, f)(x), atol=1e-6)


@pytest.mark.parametrize("spec", TRANSLATES)
@few
@given(n=sizes, seed=seeds, shift=st.floats(-100, 100))
def test_shifted_rows_give_a_shifted_result(spec, n, seed, shift):
    f = most(spec, n)
    if f is None:
        return
    x = inputs("random", n, f, 12, seed)
    assert np.allclose(make_rule(spec, f)(x + shift), make_rule(spec, f)(x) + shift, atol=1e-6)


@pytest.mark.parametrize("spec", [spec for spec in SPECS if "clipping" not in spec and spec != "sign_majority"])
@few
@given(n=sizes, seed=seeds, exponent=st.integers(-30, 30))
def test_scaled_rows_give_a_scaled_result(spec, n, seed, exponent):
    f = most(spec, n)
    if f is None:
        return
    x, scale = inputs("random", n, f, 12, seed), 2.0**exponent
    assert np.allclose(make_rule(spec, f)(x * scale) / scale, make_rule(spec, f)(x), atol=1e-6)


@pytest.mark.parametrize("spec", ROBUST)
@few
@given(n=sizes, seed=seeds, size=st.sampled_from([1.0, 1e3, 1e30]), first=st.booleans())
def test_f_arbitrary_rows_do_not_carry_the_result_away(spec, n, seed, size, first):
    f = most(spec, n)
    if f is None:
        return
    x = inputs("random", n, f, 12, seed)
    attack = np.random.default_rng(seed).standard_normal((f, 12)) * size
    if first:  # also as the reference of the distances
        x = x[::-1].copy()
        x[:f] = attack
        honest = x[f:]
    else:
        x[n - f :] = attack
        honest = x[: n - f]
    parameters = {"index": n - 1 if first else 0} if spec == "monna" else {}
    result = make_rule(spec, f, **parameters)(x)
    assert np.linalg.norm(result) <= 20 * n * np.linalg.norm(honest, axis=1).max()


@pytest.mark.parametrize("spec", SPECS)
def test_equal_rows_give_that_row(spec):
    row = np.random.default_rng(0).standard_normal(50) * 0.1
    for n in (3, 7, 16):
        f = most(spec, n)
        if f is not None:
            expected = np.sign(row) if spec == "sign_majority" else row
            assert np.allclose(make_rule(spec, f)(np.tile(row, (n, 1))), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("kind", [np.float32, np.float64, torch.float32, torch.float64])
def test_result_is_of_the_kind_and_type_of_the_rows(spec, kind):
    x = inputs("random", 16, 3, 30)
    x = torch.from_numpy(x).to(kind) if isinstance(kind, torch.dtype) else x.astype(kind)
    before = x.clone() if isinstance(x, torch.Tensor) else x.copy()
    result = make_rule(spec, 1)(x)
    assert type(result) is type(x)
    assert result.dtype == x.dtype
    assert result.shape == (30,)
    assert (x == before).all()


@pytest.mark.parametrize("spec", SPECS)
def test_rows_with_nan_or_infinity_are_left_out_and_count_towards_f(spec):
    x = inputs("random", 16, 3, 3000).astype(np.float32)
    x[0, 7], x[5, 2999] = np.nan, np.inf
    sound = np.delete(x, [0, 5], axis=0)
    assert np.allclose(make_rule(spec, 3)(x), make_rule(spec, 1)(sound), atol=1e-5)
    with pytest.raises(ValueError, match="2 of 16 rows"):
        make_rule(spec, 1)(x)


@pytest.mark.parametrize("spec", SPECS)
def test_the_largest_floats_give_a_finite_result(spec):
    largest = np.full((16, 40), np.finfo(np.float32).max, np.float32)
    assert np.isfinite(make_rule(spec, 3 if spec != "bulyan" else 2)(largest)).all()


@pytest.mark.parametrize("name", ["krum", "multi_krum", "mda", "monna", "nnm | krum"])
def test_rows_that_differ_in_the_sixth_digit_are_selected_as_float64_does(name):
    generator = np.random.default_rng(0)
    base = generator.standard_normal(20_000) * 100
    x = (base * (1 + 1e-6 * generator.standard_normal((16, 20_000)))).astype(np.float32)
    exact = x.astype(np.float64)
    weights = make_rule(name, 3).plan(make_rule(name, 3).observe(x), 16).matrix
    moved = make_rule(name, 3).plan(make_rule(name, 3).observe(exact - base), 16).matrix
    assert np.array_equal(weights, moved)
