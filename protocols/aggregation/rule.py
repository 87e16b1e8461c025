"""A rule over the members' rows, run by one owner of all columns or by several owners of some columns each.

    observed = [rule.observe(part) for part in parts]          # each owner: n × n numbers, to all others
    plan = rule.plan(sum(observed))                            # everybody: the same weights
    result = [plan.apply(part) for part in parts]              # each owner: its part of the result

What an owner tells the others is all they have to know: rows left out, distances, and so every weight.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from protocols.aggregation.columns import combinations, finite_marks, partial_gram
from protocols.aggregation.geometry import Geometry, Matrix
from protocols.aggregation.registry import Stage

Array = TypeVar("Array", Tensor, NDArray[np.float32], NDArray[np.float64])

_SMALLER = 2.0**-10
"""Rows near the largest float are made so much smaller that sums of a few hundred of them stay finite."""


@dataclass(frozen=True)
class Plan:
    """What remains to be done in each column: k combinations of the rows and the start, made one by a kernel."""

    matrix: Matrix
    """k × n weights of the rows."""
    of_start: Matrix
    """k weights of the start."""
    kernel: "partial[Tensor] | None"
    in_float32: bool = False
    """Whether rows of float32 may be combined as they are: the result then has the digits that they have."""

    def apply(self, part: Array, start: Array | None = None) -> Array:
        """This part (n × d) of the result (d elements), of the same kind and type; `start` as in `Rule.observe`."""
        rows, beginning = _tensor(part), None if start is None else _tensor(start)
        result = torch.empty(rows.shape[1], dtype=rows.dtype)
        for piece, mixed in combinations(rows, self.matrix, in_float32=self.in_float32):
            if self.kernel is not None:
                result[piece] = self._reduced(self.kernel, mixed, rows, piece)
            elif beginning is not None and self.of_start.any():
                result[piece] = mixed[0] + beginning[piece] * float(self.of_start[0])
            else:
                result[piece] = mixed[0]
        return result if isinstance(part, Tensor) else result.numpy()

    def _reduced(self, kernel: Callable[[Tensor], Tensor], mixed: Tensor, rows: Tensor, piece: slice) -> Tensor:
        reduced = kernel(mixed)
        if torch.isfinite(reduced.sum()) or torch.isfinite(reduced).all():
            return reduced
        _, again = next(combinations(rows[:, piece], self.matrix))
        return kernel(again * _SMALLER) / _SMALLER


@dataclass(frozen=True)
class Rule:
    """Pre-aggregators and a rule, for f rows that may be anything. Made by `make_rule`."""

    stages: tuple[Stage, ...]
    f: int
    parameters: tuple[Mapping[str, Any], ...]
    """Of each stage."""

    @property
    def name(self) -> str:
        return " | ".join(stage.name for stage in self.stages)

    def __call__(self, x: Array, start: Array | None = None) -> Array:
        """The aggregate (d elements) of the rows of `x` (n × d, float32 or float64, tensor on the CPU or array).

        `start` (d elements), the previous result, is where `centered_clip` begins; others have no use for it. Rows with
        a NaN or an infinity are left out and count towards f. The result is finite. Raises ValueError: other shapes or
        types, more than f rows left out, an n for which a stage cannot serve f.
        """
        return self.apply_sharded([x], None if start is None else [start])[0]

    def apply_sharded(self, parts: Sequence[Array], starts: Sequence[Array] | None = None) -> list[Array]:
        """The parts of the result, as the owners of these `parts` (each n × some columns) compute it together."""
        beginnings: Sequence[Array | None] = [None] * len(parts) if starts is None else starts
        observed = [self.observe(part, start) for part, start in zip(parts, beginnings, strict=True)]
        plan = self.plan(np.sum(observed, axis=0), len(parts[0]))
        return [plan.apply(part, start) for part, start in zip(parts, beginnings, strict=True)]

    def observe(self, part: Array, start: Array | None = None) -> Matrix:
        """What the owner of `part` (n × d) tells the others: (n + 1) × (n + 1) float64, with a `start` one more.

        The sum over the owners is what `plan` needs. Raises ValueError for other shapes or types.
        """
        rows, beginning = _tensor(part), None if start is None else _tensor(start)
        if rows.ndim != 2 or (beginning is not None and beginning.shape != rows.shape[1:]):
            raise ValueError(f"rows are n × d and a start has d elements; got {_shapes(rows, beginning)}")
        if any(stage.reads_gram for stage in self.stages):
            return partial_gram(rows, beginning)
        return finite_marks(rows, len(rows) + 1 + (beginning is not None))

    def plan(self, observed: Matrix, rows: int) -> Plan:
        """The weights of the n = `rows` rows, from the sum of what the owners observed. Raises ValueError."""
        sound = np.flatnonzero(np.isfinite(np.diag(observed)[:rows]))
        f = self.f - (rows - len(sound))
        if f < 0:
            raise ValueError(f"{rows - len(sound)} of {rows} rows hold NaN or infinity, but f is {self.f}")
        kept = np.concatenate([sound, np.arange(rows, len(observed))])
        geometry = as_given = Geometry(observed[np.ix_(kept, kept)], len(sound))
        mixing = np.eye(len(kept))[: len(sound)]
        for stage, parameters in zip(self.stages, self.parameters, strict=True):
            stage.require(geometry.rows, f)
            if stage.mix is not None:
                matrix = np.atleast_2d(stage.mix(geometry, f, **parameters))
                mixing = matrix @ np.vstack([mixing, np.eye(len(kept))[len(sound) :]])
                geometry = geometry.mixed(matrix)
        matrix = np.zeros((len(mixing), rows))
        matrix[:, sound] = mixing[:, : len(sound)]
        of_start = mixing[:, -1] if len(observed) > rows + 1 else np.zeros(len(mixing))
        last = self.stages[-1]
        kernel = None if last.kernel is None else partial(last.kernel, f=f, **self.parameters[-1])
        return Plan(matrix, of_start, kernel, len(sound) == rows and bool((matrix >= 0).all()) and as_given.is_spread())


def _tensor(array: Tensor | NDArray[Any]) -> Tensor:
    if isinstance(array, np.ndarray):
        if array.dtype not in (np.float32, np.float64):
            raise ValueError(f"rows are float32 or float64, not {array.dtype}")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            return torch.from_numpy(array)  # shares the memory and only reads it
    if array.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"rows are float32 or float64, not {array.dtype}")
    return array.detach()


def _shapes(rows: Tensor, start: Tensor | None) -> str:
    return f"{tuple(rows.shape)}" + ("" if start is None else f" and {tuple(start.shape)}")
