"""Rows of float32 are multiplied as they are where they lie far apart, and as float64 where digits would be lost."""

import numpy as np
import pytest
import torch

from protocols.aggregation import make_rule
from protocols.aggregation.columns import partial_gram
from tests.protocols.aggregation.examples import SPECS

D = 70_000
"""Several blocks, and a rest."""


def rows_alike(alike, n=16, f=3, seed=0):
    """float32 rows that are alike so many times as they differ; the last f are an attacker's."""
    generator = np.random.default_rng(seed)
    rows = generator.standard_normal((n, D)) + alike * generator.standard_normal(D)
    rows[n - f :] = -10 * rows[n - f :]
    return rows.astype(np.float32)


def squared_distances(gram):
    squares = gram.diagonal()
    return squares[:, None] + squares - 2 * gram


def exactly(rows):
    points = np.vstack([rows.astype(np.float64), np.zeros(rows.shape[1])])
    return np.array([((points - point) ** 2).sum(axis=1) for point in points])


@pytest.mark.parametrize("scale", [1e-30, 1e-18, 1e-12, 1.0, 1e15, 1e17, 1e25])
@pytest.mark.parametrize("alike", [0.0, 0.3, 2.5, 4.0, 6.0, 100.0, 1e4])
def test_distances_are_right_however_alike_long_or_short_the_rows_are(alike, scale):
    rows = rows_alike(alike) * np.float32(scale)
    distances = squared_distances(partial_gram(torch.from_numpy(rows), None))
    expected = exactly(rows)
    assert np.abs(distances - expected).max(where=expected > 0, initial=0) <= 1e-6 * expected.max()
    honest = np.ix_(range(13), range(13))
    apart = expected[honest] > 0
    assert np.allclose(distances[honest][apart], expected[honest][apart], rtol=1e-6, atol=0)


def test_an_attacker_who_sends_the_largest_floats_costs_the_others_no_digit():
    rows = rows_alike(1.0)
    rows[13], rows[14], rows[15] = 3e38, 1e22, -1e-40
    distances, expected = squared_distances(partial_gram(torch.from_numpy(rows), None)), exactly(rows)
    assert np.allclose(distances[:13, :13], expected[:13, :13], rtol=1e-6, atol=1e-6)
    assert np.isfinite(distances).all()


def test_rows_that_are_alike_in_some_columns_only_are_looked_at_block_by_block():
    rows = rows_alike(0.0)
    rows[:, 40_000:] = rows_alike(100.0)[:, 40_000:]
    distances, expected = squared_distances(partial_gram(torch.from_numpy(rows), None)), exactly(rows)
    apart = expected > 0
    assert np.allclose(distances[apart], expected[apart], rtol=1e-6, atol=0)


@pytest.mark.parametrize("alike", [0.0, 1.0, 100.0])
@pytest.mark.parametrize("spec", SPECS)
def test_the_result_is_that_of_float64(spec, alike):
    f = 3 if spec != "bulyan" else 2
    rows = rows_alike(alike, f=f)
    expected = make_rule(spec, f)(rows.astype(np.float64))
    size = np.sqrt(np.square(rows[:13].astype(np.float64)).mean())
    assert np.abs(make_rule(spec, f)(rows) - expected).max() <= 3e-6 * max(size, np.abs(expected).max())


@pytest.mark.parametrize("spec", SPECS)
def test_owners_of_columns_compute_what_one_computes(spec):
    f = 3 if spec != "bulyan" else 2
    rows = rows_alike(1.0, f=f)
    rule = make_rule(spec, f)
    parts = np.split(rows, [100, 1124, 50_001], axis=1)
    whole = rule(rows)
    assert np.abs(np.concatenate(rule.apply_sharded(parts)) - whole).max() <= 3e-6 * np.abs(whole).max()


def test_a_row_without_weight_may_hold_anything():
    rows = rows_alike(0.0)
    rows[3, 7], rows[15, 60_000] = np.nan, -np.inf
    rest = np.delete(rows, [3, 15], axis=0)
    assert np.allclose(make_rule("nnm | mean", 3)(rows), make_rule("nnm | mean", 1)(rest), atol=1e-5)
