"""Gram rules that look for the directions in which the rows vary most: eigenvectors of n × n matrices."""

import numpy as np

from protocols.aggregation.geometry import Geometry, Matrix

_STEPS = 100
_SETTLED = 1e-10
_NONE_LEFT = 1e-12
"""Share of the largest eigenvalue below which one is rounding."""


def caf(geometry: Geometry, f: int) -> Matrix:
    """The weighted mean whose covariance has the smallest largest eigenvalue, among those found while rows that stand
    out along the dominant eigenvector lose weight, until 2f of n are gone (Allouah et al. 2025, "Towards Trustworthy
    Federated Learning with Untrusted Participants", Algorithm 2: covariance-bound agnostic filter).

    byzfl: the eigenvector is one power step from a random vector, so its result is random; ours is exact. What stands
    out is measured by the rows that still have weight: byzfl measures by all, and a far row that is long gone then
    keeps the others in for ever. With f = 0 byzfl gives None, ours the mean.
    """
    rows = geometry.rows
    weights = np.ones(rows)
    best, smallest = geometry.average(np.arange(rows)), np.inf
    while f and weights.sum() > rows - 2 * f:
        mean = weights / weights.sum()
        inner = geometry.gram[:rows, :rows]
        inner = inner - (mean @ inner)[None, :]
        inner = inner - (inner @ mean)[:, None]
        root = np.sqrt(weights)
        values, vectors = np.linalg.eigh(root[:, None] * inner * root[None, :])
        value = values[-1] / weights.sum()
        if value < smallest:
            smallest, best = value, np.concatenate([mean, np.zeros(len(geometry.gram) - rows)])
        outlying = (inner @ (root * vectors[:, -1])) ** 2
        most = outlying[weights > 0].max()
        if not most > 0:
            break
        weights = weights * np.maximum(0, 1 - outlying / most)
    return best


def flag(geometry: Geometry, f: int, *, dimensions: int | None = None) -> Matrix:
    """The mean of the rows' projections on the subspace that lies nearest to their directions (Almasi et al. 2024,
    "Flag Aggregator", section 3: iteratively reweighted principal components, without the pairwise regulariser).

    The subspace has ⌈(n + 1)/2⌉ `dimensions` unless given, as in the paper. Rows longer than the median length are
    first shortened to it: the paper projects them as they are, so that one attacker inside the subspace moves its mean
    anywhere. byzfl has no such rule.
    """
    rows = geometry.rows
    dimensions = rows // 2 + 1 if dimensions is None else dimensions
    if not 1 <= dimensions <= rows:
        raise ValueError(f"flag's subspace has from 1 to n = {rows} dimensions; dimensions is {dimensions}")
    norms = geometry.norms()
    scales = np.divide(1, norms, out=np.zeros(rows), where=norms > 0)
    cosines = scales[:, None] * geometry.about_origin() * scales[None, :]
    coefficients, pulls = np.eye(rows), np.ones(rows)
    for _ in range(_STEPS):
        previous, coefficients = coefficients, _projector(cosines, pulls, dimensions)
        explained = np.einsum("ij,ij->j", cosines, coefficients @ cosines)
        pulls = 1 / np.sqrt(np.maximum(1 - explained, _SETTLED))
        if np.abs(coefficients @ cosines - previous @ cosines).max() <= _SETTLED:
            break
    lengths = np.minimum(norms, np.sort(norms)[(rows - 1) // 2])
    weights = scales * (coefficients @ (cosines @ lengths)) / rows
    return np.concatenate([weights, [1 - weights.sum()], np.zeros(len(geometry.gram) - rows - 1)])


def _projector(cosines: Matrix, pulls: Matrix, dimensions: int) -> Matrix:
    """C such that the rows' directions A (d × n) times C times Aᵀ projects on their main weighted directions."""
    root = np.sqrt(pulls)
    values, vectors = np.linalg.eigh(root[:, None] * cosines * root[None, :])
    values, vectors = values[-dimensions:], vectors[:, -dimensions:]
    real = values > _NONE_LEFT * max(values[-1], np.finfo(np.float64).tiny)
    basis = root[:, None] * vectors[:, real]
    projector: Matrix = basis / values[real] @ basis.T
    return projector
