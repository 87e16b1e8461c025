"""Robust aggregation: rules by which up to f of n members may send anything at all.

A rule looks at the rows' distances (their Gram matrix, which owners of different columns add up) or at each column
alone, so it runs over sharded columns exactly as over the whole. Rules compose: `make_rule("nnm | trimmed_mean", f=3)`.
"""

from protocols.aggregation.factory import make_rule
from protocols.aggregation.registry import PRE_AGGREGATORS, RULES
from protocols.aggregation.rule import Plan, Rule

__all__ = ["PRE_AGGREGATORS", "RULES", "Plan", "Rule", "make_rule"]
