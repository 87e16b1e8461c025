"""Gram rules that choose some of the rows and average them: each gives the weights of the points (n rows, anchors)."""

import numpy as np

from protocols.aggregation.diameter import smallest_diameter
from protocols.aggregation.geometry import Geometry, Matrix


def mean(geometry: Geometry, f: int) -> Matrix:
    """The mean of all rows (McMahan et al. 2017). Breakdown point 0: it bounds no attack, whatever f it is given.

    It takes any f < n as what others are compared with. `nnm | mean` bounds no attack either: the attackers' own mixed
    rows may lie anywhere.
    """
    return geometry.average(np.arange(geometry.rows))


def krum(geometry: Geometry, f: int) -> Matrix:
    """The row whose n − f − 1 nearest others are nearest, by the sum of squared distances; of equals the first.

    Blanchard et al. 2017, "Machine Learning with Adversaries", section 4, count n − f − 2 others and require
    n > 2f + 2. As byzfl and Allouah et al. 2023 ("Fixing by Mixing") we count the n − f nearest with the row itself and
    require n > 2f, which serves more (n, f).
    """
    return geometry.point(int(np.argmin(_scores(geometry.squared_distances(), f))))


def multi_krum(geometry: Geometry, f: int, *, m: int | None = None) -> Matrix:
    """The mean of the `m` (n − f unless given) rows with the best scores of `krum`.

    Blanchard et al. 2017, section 4 leave m open; byzfl: m = n − f. Of equals the first is taken, in byzfl any.
    """
    m = geometry.rows - f if m is None else m
    if not 1 <= m <= geometry.rows - f:
        raise ValueError(f"multi_krum averages from 1 to n − f = {geometry.rows - f} rows; m is {m}")
    return geometry.average(_best(_scores(geometry.squared_distances(), f), m))


def mda(geometry: Geometry, f: int) -> Matrix:
    """The mean of the n − f rows with the smallest diameter (El Mhamdi et al. 2020, "Genuinely Distributed Byzantine
    Machine Learning", section 3: minimum diameter averaging), exactly; of equals the first in the order of subsets.

    byzfl: the same, by trying all subsets.
    """
    return geometry.average(smallest_diameter(geometry.squared_distances(), geometry.rows - f))


def monna(geometry: Geometry, f: int, *, index: int = 0) -> Matrix:
    """The mean of the n − f rows nearest to the row `index`, one's own, with itself (Farhadkhani et al. 2023, "Robust
    Collaborative Learning with Linear Gradient Overhead", Algorithm 1). byzfl: the same, its `idx`.

    The own row has to be honest: whoever else aggregates with it trusts its sender.
    """
    if not 0 <= index < geometry.rows:
        raise ValueError(f"monna's own row is one of {geometry.rows}; index is {index}")
    return geometry.average(_best(geometry.squared_distances()[index], geometry.rows - f))


def bulyan_selection(geometry: Geometry, f: int) -> Matrix:
    """θ = n − 2f rows, one by one the `krum` of those left (El Mhamdi et al. 2018, "The Hidden Vulnerability of
    Distributed Learning in Byzantium", section 4). What follows is the mean of the θ − 2f values nearest to the median,
    coordinate by coordinate.

    byzfl has no Bulyan. The score is that of our `krum`, of the n' − f nearest of n' rows left (at least one other).
    """
    distances = geometry.squared_distances()
    left = list(range(geometry.rows))
    chosen: list[int] = []
    while len(chosen) < geometry.rows - 2 * f:
        scores = _scores(distances[np.ix_(left, left)], f)
        chosen.append(left.pop(int(np.argmin(scores))))
    matrix = np.zeros((len(chosen), len(geometry.gram)))
    matrix[np.arange(len(chosen)), sorted(chosen)] = 1
    return matrix


def _scores(distances: Matrix, f: int) -> Matrix:
    """Each row's sum of squared distances to its n − f nearest, itself among them, and one other at least."""
    scores: Matrix = np.sort(distances, axis=1)[:, : max(2, len(distances) - f)].sum(axis=1)
    return scores


def _best(scores: Matrix, count: int) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    return np.argsort(scores, kind="stable")[:count]
