"""Flat float32 vectors: what the parameters, gradients and updates of any model are to the protocols."""

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]
"""One-dimensional, contiguous, in native byte order."""

_SLICE = 65_536
"""Elements: with a few temporaries, what fits the second-level cache."""


def slices(count: int) -> list[slice]:
    """The pieces in which a chain of element-wise operations over `count` elements stays in the cache."""
    return [slice(start, min(count, start + _SLICE)) for start in range(0, count, _SLICE)]


def all_finite(vector: Vector) -> bool:
    """Whether no element is NaN or infinite."""
    return all(bool(np.isfinite(vector[piece]).all()) for piece in slices(len(vector)))


def read_only(vector: Vector) -> Vector:
    """A view of `vector` through which nothing can be written."""
    view = vector.view()
    view.flags.writeable = False
    return view
