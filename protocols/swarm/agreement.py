"""Whether two peers of a stage have made the same of the same work.

Machines round differently: what they make of equal bytes is within a ten-thousandth of each other. What a liar changes
to any effect is a hundred times more.

One thing machines may differ in by far: a unit whose input is all but zero is on with one and off with another (as with
ReLU), which changes the gradient of one sample. So one sample of several may differ, by no more than the length that a
sample has on average; and as the codec rounds those beside it anew, by as much as that does.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FEWEST_SAMPLES = 4
"""With fewer no sample may differ: it would be most of the microbatch."""
ROUNDING = 1e-6
"""So long a difference is nothing: what is left of the gradient of a loss that is all but zero is rounding (6e-8 of
each probability), where ordinary gradients are a thousandth long and more."""


CODEC_NOISE: dict[str, float] = {"none": 0.0, "float16": 0.001, "int8": 0.02}
"""How far a vector is from itself, relative to its length, when it is rounded on two grids: with int8 a block whose
largest element is six times the usual one by 6 / 127 / √12 · √2."""


@dataclass(frozen=True, slots=True)
class Product:
    """What a stage makes of a work: outputs, or the gradient of its inputs; and on the last stage the loss."""

    tensor: NDArray[np.float32] | None
    """(samples, …)"""
    loss: float | None

    @property
    def is_something(self) -> bool:
        """Whether there is anything to compare; the first stage's backward pass gives nothing."""
        return self.tensor is not None or self.loss is not None


def tolerance_of(tolerance: float, codec: str) -> float:
    """What `agree` is given for answers that travel by that codec; `tolerance`: the manifest's, of arithmetic."""
    return tolerance + CODEC_NOISE[codec]


def agree(one: Product, other: Product, tolerance: float) -> bool:
    """`tolerance`: of the length of the difference, relative to the shorter of the two (Euclidean)."""
    return _losses_agree(one.loss, other.loss, tolerance) and _tensors_agree(one.tensor, other.tensor, tolerance)


def _losses_agree(one: float | None, other: float | None, tolerance: float) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=tolerance, abs_tol=tolerance * tolerance)


def _tensors_agree(one: NDArray[np.float32] | None, other: NDArray[np.float32] | None, tolerance: float) -> bool:
    if one is None or other is None:
        return one is other
    if one.shape != other.shape:
        return False
    rows, others = (tensor.reshape(len(tensor), -1).astype(np.float64) for tensor in (one, other))
    shorter = min(_length(rows), _length(others))
    allowed = max(tolerance * shorter, ROUNDING)
    differences = np.linalg.norm(rows - others, axis=1)
    if _length(differences) <= allowed:
        return True
    worst = int(differences.argmax())
    if len(rows) < FEWEST_SAMPLES or differences[worst] > shorter / math.sqrt(len(rows)):
        return False
    return _length(np.delete(differences, worst)) <= allowed


def _length(values: NDArray[Any]) -> float:
    return float(np.linalg.norm(values))
