"""The rules of a round: how the members' updates become one.

A coordinate-wise rule treats every coordinate alone, so each owner applies it to its part, and the parts together are
the rule on the whole vector. These work element by element, in the order of the rows, with one IEEE rounding at a
time (no BLAS, no pairwise sums, no fused multiply-add): whoever recomputes a part gets the same bits on any CPU.

Other rules look at the members' distances, and run in two steps (`protocols.round.weighing`).

`mean` weighs members by their samples and trusts them all. The robust ones (`protocols.aggregation`) count every member
alike, for nobody can check yet how many samples are behind an update, and withstand f of them.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from protocols.manifest import Averaging
from protocols.vectors import Vector, slices

if TYPE_CHECKING:
    from protocols import aggregation

Rows = Sequence[Vector] | NDArray[np.float32]
"""n rows of d elements each; rows are members."""
Matrix = NDArray[np.float64]


class CoordinateWiseRule(ABC):
    """A rule that an owner can apply to its part alone; `name` is the manifest's word for it."""

    name: str

    @abstractmethod
    def aggregate(self, rows: Rows, weights: Sequence[float]) -> Vector:
        """One vector of d elements from n × d finite float32 `rows` and n `weights` (samples, ≥ 0).

        The result is finite. Raises ValueError when there is no row, when the number of weights differs, or when no
        weight is positive.
        """


class Mean(CoordinateWiseRule):
    """The mean weighted by samples (FedAvg, McMahan et al. 2017).

    Breakdown point 0: a single attacker moves the result anywhere.
    """

    name = "mean"

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


class Robust(CoordinateWiseRule):
    """One of `COORDINATE_WISE`, for f members that may send anything.

    Of a chunk that so few have delivered that f of them would be half, it withstands as many as it can.
    """

    def __init__(self, name: str, byzantine: int) -> None:
        self.name, self.byzantine = name, byzantine

    def aggregate(self, rows: Rows, weights: Sequence[float]) -> Vector:
        from protocols.aggregation import make_rule  # noqa: PLC0415  (torch takes a second to load)

        _check(rows, weights)
        matrix = np.asarray([row for row, weight in zip(rows, weights, strict=True) if weight > 0])
        return make_rule(self.name, min(self.byzantine, (len(matrix) - 1) // 2))(matrix)


class DistanceRule:
    """Any other rule of `protocols.aggregation`, or pre-aggregators and a rule, for f members that may send anything.

    Of so few members that it cannot serve f, it withstands as many as it can.
    """

    def __init__(self, name: str, byzantine: int, options: Mapping[str, Any]) -> None:
        """Raises ValueError."""
        from protocols.aggregation import make_rule  # noqa: PLC0415  (torch takes a second to load)

        self.name, self.byzantine = name, byzantine
        self._for: Callable[[int], aggregation.Rule] = lambda f: make_rule(name, f, **options)
        self._largest = self._for(byzantine)

    def require(self, members: int) -> None:
        """Raises ValueError when so many members are too few."""
        self._largest.plan(np.zeros((members + 1, members + 1)), members)

    def observe(self, rows: NDArray[np.float32]) -> Matrix:
        """Inner products of the rows (n × d) and the origin, (n + 1) × (n + 1), over these columns."""
        return self._largest.observe(rows)

    def plan(self, gram: Matrix) -> "aggregation.Plan":
        """What is to be done with every column, from the sum of what was observed of all. Raises ValueError."""
        members = len(gram) - 1
        for withstood in range(min(self.byzantine, members), -1, -1):
            try:
                return self._for(withstood).plan(gram, members)
            except ValueError:
                if not withstood:
                    raise
        raise AssertionError


COORDINATE_WISE = ("median", "trimmed_mean", "meamed", "sign_majority")
Rule = CoordinateWiseRule | DistanceRule


def rule(name: str, byzantine: int = 0, options: Mapping[str, Any] = MappingProxyType({})) -> Rule:
    """The rule that a manifest names, for so many members that may send anything. Raises ValueError."""
    if name == Mean.name and byzantine:
        raise ValueError("the mean withstands no member that sends anything at all; choose another rule, as median")
    if name not in (Mean.name, *COORDINATE_WISE):
        return DistanceRule(name, byzantine, options)
    if options:
        raise ValueError(f"{name} has no option {next(iter(options))!r}")
    return Mean() if name == Mean.name else Robust(name, byzantine)


def rule_of(averaging: Averaging) -> Rule:
    """The rule that a manifest names. Raises ValueError, also when a quorum is too small for it."""
    made = rule(averaging.rule, averaging.byzantine, averaging.options)
    if isinstance(made, DistanceRule):
        made.require(averaging.quorum)
    return made


_LARGEST = np.finfo(np.float32).max


def _shares(rows: Rows, weights: Sequence[float]) -> list[np.float32]:
    """The weights as fractions of their sum."""
    total = _check(rows, weights)
    return [np.float32(weight / total) for weight in weights]


def _check(rows: Rows, weights: Sequence[float]) -> float:
    """The sum of the weights. Raises ValueError."""
    if len(rows) == 0 or len(rows) != len(weights):
        raise ValueError(f"{len(rows)} rows and {len(weights)} weights cannot be aggregated")
    total = 0.0
    for weight in weights:  # the built-in sum compensates from Python 3.12 on: other bits
        total += weight
    if not all(weight >= 0 for weight in weights) or not 0 < total < float("inf"):
        raise ValueError("weights must be finite, none negative and one positive")
    return total
