"""The rules that byzfl has too give what byzfl gives, in float64 (its numpy side)."""

import numpy as np
import pytest
import torch
from byzfl_rules import load

from protocols.aggregation import make_rule
from tests.protocols.aggregation.examples import KINDS, inputs

RULES, BEFORE = load()
SIZES = [(1, 0), (2, 0), (3, 1), (5, 0), (7, 2), (10, 3), (16, 3), (16, 7), (33, 8), (64, 31)]

THEIRS = {
    "mean": lambda f: RULES.Average(),
    "median": lambda f: RULES.Median(),
    "trimmed_mean": RULES.TrMean,
    "meamed": RULES.Meamed,
    "krum": RULES.Krum,
    "multi_krum": RULES.MultiKrum,
    "monna": RULES.MoNNA,
    "nnm | trimmed_mean": lambda f: lambda x: RULES.TrMean(f)(BEFORE.NNM(f)(x)),
    "nnm | median": lambda f: lambda x: RULES.Median()(BEFORE.NNM(f)(x)),
    "arc | trimmed_mean": lambda f: lambda x: RULES.TrMean(f)(BEFORE.ARC(f)(x)),
    "clipping | median": lambda f: lambda x: RULES.Median()(BEFORE.Clipping(2.0)(x)),
}


@pytest.mark.filterwarnings("ignore:Mean of empty slice", "ignore:invalid value encountered")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", THEIRS)
def test_rule_gives_what_byzfl_gives(name, kind):
    for n, f in SIZES:
        x = inputs(kind, n, f, d=40)
        assert np.allclose(make_rule(name, f)(x), THEIRS[name](f)(x.copy()), rtol=1e-9, atol=1e-9), (n, f)


@pytest.mark.parametrize("kind", KINDS)
def test_mda_finds_the_subset_that_byzfl_finds_among_all(kind):
    for n, f in [(1, 0), (2, 0), (3, 1), (7, 2), (9, 4), (11, 3)]:
        if n - f > 1:  # of one row byzfl looks for the diameter in vain
            x = inputs(kind, n, f, d=40)
            assert np.allclose(make_rule("mda", f)(x), RULES.MDA(f)(x.copy()), rtol=1e-9, atol=1e-9), (n, f)


@pytest.mark.parametrize("kind", ["random", "attacked"])
def test_geometric_median_is_where_byzfl_converges(kind):
    for n, f in [(3, 1), (7, 2), (16, 7), (64, 31)]:
        x = inputs(kind, n, f, d=40)
        ours = make_rule("geometric_median", f, nu=0.1)(x)
        assert np.allclose(ours, RULES.GeometricMedian(nu=0.1, T=1000)(x), atol=1e-6), (n, f)


@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.parametrize("kind", ["random", "attacked"])
def test_centered_clip_is_where_byzfl_converges_and_takes_its_steps(kind):
    for n, f in [(3, 1), (7, 2), (16, 7), (64, 31)]:
        x = inputs(kind, n, f, d=40)
        converged = make_rule("centered_clip", f, tau=8.0)(x)
        assert np.allclose(converged, RULES.CenteredClipping(tau=8.0, L=3000)(x), atol=1e-6), (n, f)
        stepped = make_rule("centered_clip", f, tau=8.0, iterations=3)(x)
        assert np.allclose(stepped, RULES.CenteredClipping(tau=8.0, L=3)(x), atol=1e-9), (n, f)


def test_centered_clip_starts_at_the_previous_result_as_byzfl_does():
    theirs, ours = RULES.CenteredClipping(tau=1.0, L=2), make_rule("centered_clip", 2, tau=1.0, iterations=2)
    previous = None
    for seed in range(3):
        x = inputs("random", 7, 2, d=40, seed=seed)
        previous = ours(x, start=previous)
        assert np.allclose(previous, theirs(x), atol=1e-9)


@pytest.mark.parametrize("name", ["median", "trimmed_mean", "meamed", "multi_krum", "nnm | trimmed_mean"])
def test_float32_tensors_give_what_byzfl_gives(name):
    x = torch.from_numpy(inputs("attacked", 16, 3, d=5000)).float()
    assert torch.allclose(make_rule(name, 3)(x), THEIRS[name](3)(x.clone()), atol=1e-5)
