"""Aggregation rules: how the members' updates become one.

A coordinate-wise rule treats every coordinate alone, so each owner applies it to its part, and the parts together are
the rule on the whole vector. Rules work element by element, in the order of the rows, with one IEEE rounding at a
time (no BLAS, no pairwise sums, no fused multiply-add): whoever recomputes a part gets the same bits on any CPU.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from protocols.vectors import Vector, slices

Rows = Sequence[Vector] | NDArray[np.float32]
"""n rows of d elements each; rows are members."""


class CoordinateWiseRule(ABC):
    """A rule that an owner can apply to its part alone; `name` is the manifest's word for it."""

    name: str

    @abstractmethod
    def supports(self, members: int, byzantine: int) -> bool:
        """Whether the rule bounds the harm of `byzantine` attackers (f) among `members` (n)."""

    @abstractmethod
    def aggregate(self, rows: Rows, weights: Sequence[float]) -> Vector:
        """One vector of d elements from n × d finite float32 `rows` and n `weights` (samples, ≥ 0).

        The result is finite. Raises ValueError when there is no row, when the number of weights differs, or when no
        weight is positive.
        """


class Mean(CoordinateWiseRule):
    """The mean weighted by samples (FedAvg, McMahan et al. 2017).

    Breakdown point 0: a single attacker moves the result anywhere, so f must be 0.
    """

    name = "mean"

    def supports(self, members: int, byzantine: int) -> bool:
        return members >= 1 and byzantine == 0

    def aggregate(self, rows: Rows, weights: Sequence[float]) -> Vector:
        shares = _shares(rows, weights)
        mean = np.empty_like(rows[0])
        for piece in slices(len(mean)):
            total = mean[piece]
            np.multiply(rows[0][piece], shares[0], out=total)
            term = np.empty_like(total)
            for row, share in zip(rows[1:], shares[1:], strict=True):
                np.multiply(row[piece], share, out=term)
                with np.errstate(over="ignore"):
                    np.add(total, term, out=total)
            np.clip(total, -_LARGEST, _LARGEST, out=total)  # rounding may carry a sum of the largest floats over
        return mean


RULES: dict[str, CoordinateWiseRule] = {rule.name: rule for rule in (Mean(),)}


def rule(name: str) -> CoordinateWiseRule:
    """The rule that a manifest names. Raises ValueError."""
    if name not in RULES:
        raise ValueError(f"there is no aggregation rule {name!r}; choose one of {', '.join(RULES)}")
    return RULES[name]


_LARGEST = np.finfo(np.float32).max


def _shares(rows: Rows, weights: Sequence[float]) -> list[np.float32]:
    """The weights as fractions of their sum."""
    if len(rows) == 0 or len(rows) != len(weights):
        raise ValueError(f"{len(rows)} rows and {len(weights)} weights cannot be aggregated")
    total = 0.0
    for weight in weights:  # the built-in sum compensates from Python 3.12 on: other bits
        total += weight
    if not all(weight >= 0 for weight in weights) or not 0 < total < float("inf"):
        raise ValueError("weights must be finite, none negative and one positive")
    return [np.float32(weight / total) for weight in weights]
