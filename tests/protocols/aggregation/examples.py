"""Rows to aggregate, and rules that n rows with f attackers can have."""

from functools import cache

import numpy as np

from protocols.aggregation import RULES, make_rule

SPECS = (*RULES, "nnm | trimmed_mean", "nnm | mean", "arc | median", "bucketing | krum", "clipping | nnm | meamed")
ROBUST = tuple(spec for spec in SPECS if spec not in ("mean", "nnm | mean"))  # an attacker's own mixed row stays far
TRANSLATES = tuple(spec for spec in SPECS if spec not in ("sign_majority", "flag") and "arc" not in spec)
TRANSLATES = tuple(spec for spec in TRANSLATES if "clipping" not in spec)


@cache
def most(spec, n):
    """The largest f that the rule serves with n rows."""
    serves = [f for f in range(n) if _serves(spec, n, f)]
    return max(serves, default=None)


def inputs(kind, n, f, d, seed=0):
    """float64 rows: the last f are attackers' where the kind has some."""
    generator = np.random.default_rng([seed, n, f, d])
    noise = generator.standard_normal((n, d))
    if kind == "random":
        return noise
    if kind == "clustered":
        return noise * 0.1 + 5.0 * (np.arange(n) % 2)[:, None]
    if kind == "nearly equal":
        return 1 + 1e-6 * noise + np.zeros((n, d))
    assert kind == "attacked"
    rows = noise + 3
    rows[n - f :] = rows[n - f :] * -50
    return rows


KINDS = ("random", "clustered", "nearly equal", "attacked")


def _serves(spec, n, f):
    try:
        make_rule(spec, f)(np.zeros((n, 1)))
    except ValueError:
        return False
    return True
