import numpy as np
import pytest

from protocols.aggregation import make_rule


@pytest.mark.parametrize(
    ("spec", "f", "parameters", "message"),
    [
        ("average", 0, {}, r"'average'.*mean"),
        ("nnm", 1, {}, "at the end, one rule"),
        ("krum | median", 1, {}, "at the end, one rule"),
        ("krum", -1, {}, "whole number"),
        ("krum", 1.5, {}, "whole number"),
        ("krum", 1, {"tau": 1.0}, "no parameter 'tau'; it has none"),
        ("centered_clip", 1, {"tau": "1"}, "tau must be a number, not '1'"),
        ("centered_clip", 1, {"iterations": 1.5}, "iterations must be a whole number, not 1.5"),
        ("multi_krum", 1, {"m": True}, "m must be a whole number, not True"),
    ],
)
def test_a_rule_that_cannot_be_made_is_refused(spec, f, parameters, message):
    with pytest.raises(ValueError, match=message):
        make_rule(spec, f, **parameters)


@pytest.mark.parametrize(
    ("spec", "n", "f", "message"),
    [
        ("krum", 6, 3, "krum requires n > 2f"),
        ("mean", 2, 2, "mean requires n > f"),
        ("bulyan", 14, 3, "bulyan requires n ≥ 4f"),
        ("bucketing | median", 12, 3, "median requires n > 2f.*n is 6 and f is 3"),
        ("mean", 0, 0, "mean requires"),
    ],
)
def test_rows_that_a_rule_cannot_serve_are_refused_with_its_requirement(spec, n, f, message):
    with pytest.raises(ValueError, match=message):
        make_rule(spec, f)(np.ones((n, 4)))


@pytest.mark.parametrize(
    ("spec", "parameters"),
    [
        ("centered_clip", {"tau": -1.0}),
        ("centered_clip", {"iterations": 0}),
        ("centered_clip", {"iterations": 10**9}),
        ("geometric_median", {"nu": float("nan")}),
        ("multi_krum", {"m": 7}),
        ("monna", {"index": 7}),
        ("flag", {"dimensions": 0}),
        ("bucketing | mean", {"s": 0}),
        ("clipping | mean", {"radius": -1.0}),
    ],
)
def test_parameters_out_of_range_are_refused_by_name(spec, parameters):
    with pytest.raises(ValueError, match=next(iter(parameters))):
        make_rule(spec, 2, **parameters)(np.ones((7, 4)))


def test_other_types_and_shapes_are_refused():
    with pytest.raises(ValueError, match="float32 or float64, not int64"):
        make_rule("mean", 0)(np.ones((2, 2), np.int64))
    with pytest.raises(ValueError, match="n × d"):
        make_rule("mean", 0)(np.ones(3))
    with pytest.raises(ValueError, match="n × d"):
        make_rule("centered_clip", 0)(np.ones((2, 3)), start=np.ones(4))


def test_parameters_reach_the_stages_that_have_them():
    x = np.array([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]])
    assert np.allclose(make_rule("clipping | mean", 0, radius=1.0)(x), [0.3, 0.4])


def test_bucketing_draws_another_order_from_another_seed():
    x = np.arange(16.0)[:, None]
    results = {float(make_rule("bucketing | median", 1, seed=seed)(x)[0]) for seed in range(8)}
    assert len(results) > 1
