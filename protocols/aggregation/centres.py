"""Gram rules that move a centre until it rests: the centre is a combination of the points, so a step costs O(n²)."""

from collections.abc import Callable

import numpy as np

from protocols.aggregation.geometry import Geometry, Matrix

_STEPS = 1000
_AT_REST = 1e-12
"""Length of a step, in median distances of the rows from the centre."""


def geometric_median(geometry: Geometry, f: int, *, nu: float | None = None) -> Matrix:
    """The point with the smallest sum of distances to the rows, by smoothed Weiszfeld steps until it rests (Pillutla et
    al. 2022, "Robust Aggregation for Federated Learning", Algorithm 2).

    `nu`, in the rows' unit, is the distance below which a row pulls no harder; unless given, 10⁻⁶ of the distance
    within which half of the rows lie, so that the rule keeps to any scale. byzfl: nu = 0.1 and the three first steps
    from the origin, which have not converged; with many steps and the same nu it gives the same.
    """
    nu = 1e-6 * geometry.spread() if nu is None else nu
    if not nu >= 0:
        raise ValueError(f"geometric_median needs a nu that is not negative; nu is {nu}")
    nu = _positive(nu, geometry)

    def step(centre: Matrix) -> Matrix:
        return _weighted(1 / np.maximum(geometry.distances_to(centre), nu), geometry)

    return _at_rest(step, _weighted(np.ones(geometry.rows), geometry), geometry)


def centered_clip(geometry: Geometry, f: int, *, tau: float | None = None, iterations: int | None = None) -> Matrix:
    """The centre about which the rows, clipped to distance `tau` (in their unit), sum to zero (Karimireddy et al. 2021,
    "Learning from History for Byzantine Robust Optimization", Algorithm 2; to convergence as in BTARD, Gorbunov et al.
    2022, section 3).

    Unless given, tau is the distance within which half of the rows lie. The start is the previous result where there is
    one, else the origin; where the centre is unique it does not depend on the start. To convergence, the steps are
    reweighted means, which have the same centre as the papers' steps and reach it from afar. With `iterations`, that
    many of the papers' steps. byzfl: tau = 100, one step (`L`), and the previous result is kept inside the object.
    """
    tau = geometry.spread() if tau is None else tau
    if not tau >= 0:
        raise ValueError(f"centered_clip needs a tau that is not negative; tau is {tau}")
    tau = _positive(tau, geometry)
    centre = geometry.point(geometry.start)

    def shares(centre: Matrix) -> Matrix:
        distances = geometry.distances_to(centre)
        return np.where(distances <= tau, 1.0, tau / np.maximum(distances, tau))

    if iterations is None:
        return _at_rest(lambda centre: _weighted(shares(centre), geometry), centre, geometry)
    if not 1 <= iterations <= _STEPS:
        raise ValueError(f"centered_clip takes 1 to {_STEPS} steps; iterations is {iterations}")
    for _ in range(iterations):
        kept = shares(centre)
        centre = centre * (1 - kept.mean())
        centre[: geometry.rows] += kept / geometry.rows
    return centre


def _positive(length: float, geometry: Geometry) -> float:
    """The length, or one below every digit of the rows' distances: when most rows are equal, their spread is zero."""
    return length or 1e-12 * float(np.sqrt(geometry.squared_distances().max())) or 1.0


def _weighted(pulls: Matrix, geometry: Geometry) -> Matrix:
    centre = np.zeros(len(geometry.gram))
    centre[: geometry.rows] = pulls / pulls.sum()
    return centre


def _at_rest(step: Callable[[Matrix], Matrix], centre: Matrix, geometry: Geometry) -> Matrix:
    for _ in range(_STEPS):
        following = step(centre)
        move = following - centre
        centre = following
        length = float(np.sqrt(max(0.0, float(move @ geometry.gram @ move))))
        if length <= _AT_REST * float(np.median(geometry.distances_to(centre))):
            break
    return centre
