import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.aggregation import make_rule
from tests.protocols.aggregation.examples import KINDS, SPECS, inputs


@pytest.mark.parametrize("spec", SPECS)
@settings(derandomize=True, max_examples=4, deadline=None)
@given(kind=st.sampled_from(KINDS), cuts=st.lists(st.integers(0, 3000), max_size=6), broken=st.booleans())
def test_owners_of_columns_compute_what_one_computes(spec, kind, cuts, broken):
    x = inputs(kind, 16, 3, 3000)
    if broken:
        x[0, 1234] = np.nan  # only one owner sees it
    rule = make_rule(spec, 3)
    parts = np.split(x, sorted(cuts), axis=1)
    assert np.allclose(np.concatenate(rule.apply_sharded(parts)), rule(x), rtol=1e-9, atol=1e-8)


def test_owners_start_from_their_part_of_the_previous_result():
    x, start = inputs("random", 7, 2, 3000), np.full(3000, 2.0)
    rule = make_rule("centered_clip", 2, tau=1.0, iterations=2)
    parts, starts = np.split(x, [100, 2000], axis=1), np.split(start, [100, 2000])
    assert np.allclose(np.concatenate(rule.apply_sharded(parts, starts)), rule(x, start), atol=1e-9)
