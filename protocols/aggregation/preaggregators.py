"""What stands before a rule: each gives k mixed rows as a matrix of weights (k × points: n rows, origin, …).

Rows stay affine combinations of the points, so that the next one, or the rule, works on the mixed Gram matrix.
"""

import blake3
import numpy as np

from protocols.aggregation.geometry import Geometry, Matrix


def nnm(geometry: Geometry, f: int) -> Matrix:
    """Nearest-neighbour mixing: each row becomes the mean of the n − f nearest rows, itself among them (Allouah et al.
    2023, "Fixing by Mixing", Algorithm 2). k = n.

    byzfl: the same, but it takes any f < n; with f ≥ n/2 there is no majority to mix with.
    """
    nearest = np.argsort(geometry.squared_distances(), axis=1, kind="stable")[:, : geometry.rows - f]
    matrix = np.zeros((geometry.rows, len(geometry.gram)))
    np.put_along_axis(matrix, nearest, 1 / (geometry.rows - f), axis=1)
    return matrix


def bucketing(geometry: Geometry, f: int, *, s: int = 2, seed: int = 0) -> Matrix:
    """Means of buckets of `s` rows in an order drawn from `seed` (Karimireddy et al. 2022, "Byzantine-Robust Learning
    on Heterogeneous Datasets via Bucketing", Algorithm 1). k = ⌈n/s⌉; the last bucket may be smaller.

    Each attacker spoils one bucket, so the rule that follows still faces f. The paper advises s = 2. byzfl: the same
    with s = 1 unless given, and an order from the global random generator; here all members have to draw the same one,
    and nobody may know it before the rows are fixed.
    """
    if s < 1:
        raise ValueError(f"bucketing takes buckets of at least 1 row; s is {s}")
    drawn = sorted(range(geometry.rows), key=lambda row: blake3.blake3(f"bucketing {seed} {row}".encode()).digest())
    return np.array([geometry.average(np.array(drawn[at : at + s])) for at in range(0, geometry.rows, s)])


def clipping(geometry: Geometry, f: int, *, radius: float = 2.0) -> Matrix:
    """Rows longer than `radius` (in the rows' unit) are shortened to it (Allouah et al. 2024, "Adaptive Gradient
    Clipping for Robust Federated Learning", section 3: static clipping). k = n. byzfl: the same, its `c`."""
    if not radius >= 0:
        raise ValueError(f"clipping needs a radius that is not negative; radius is {radius}")
    return shortened(geometry, radius)


def arc(geometry: Geometry, f: int) -> Matrix:
    """The ⌊2 f (n − f) / n⌋ longest rows are shortened to the length of the next (Allouah et al. 2024, Algorithm 2:
    adaptive robust clipping). k = n. byzfl: the same, with the number computed in floating point."""
    rows = geometry.rows
    return shortened(geometry, float(np.sort(geometry.norms())[rows - 2 * f * (rows - f) // rows - 1]))


def shortened(geometry: Geometry, radius: float) -> Matrix:
    """Rows longer than the radius, part row and part origin."""
    norms = geometry.norms()
    shares = np.divide(radius, norms, out=np.ones(geometry.rows), where=norms > radius)
    matrix = np.zeros((geometry.rows, len(geometry.gram)))
    np.fill_diagonal(matrix, shares)
    matrix[:, geometry.origin] = 1 - shares
    return matrix
