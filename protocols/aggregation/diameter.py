"""The subset of smallest diameter, exactly, without trying all subsets.

Rows farther apart than D are in conflict. k of n rows have a diameter of at most D exactly when some n − k rows cover
all conflicts (one of each pair has to go), and whether so few rows can is found by a bounded search: a tree whose size
grows with the number to leave out, not with the number of subsets.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from protocols.aggregation.geometry import Matrix


def smallest_diameter(distances: Matrix, kept: int) -> NDArray[np.intp]:
    """The `kept` of n rows with the smallest diameter, in order; of several such subsets the first in their order."""
    count = len(distances)
    candidates = np.unique(distances)
    low, high = 0, len(candidates) - 1
    while low < high:
        middle = (low + high) // 2
        if _coverable(_conflicts(distances, candidates[middle]), (1 << count) - 1, count - kept):
            high = middle
        else:
            low = middle + 1
    return np.array(_first(_conflicts(distances, candidates[low]), count, kept), dtype=np.intp)


def _conflicts(distances: Matrix, diameter: float) -> list[int]:
    """For each row, the set of those farther away, as bits."""
    return [sum(1 << int(other) for other in np.flatnonzero(row > diameter)) for row in distances]


def _first(conflicts: Sequence[int], count: int, kept: int) -> list[int]:
    """The first subset without a conflict: each row in turn stays if the rest can still be completed."""
    chosen: list[int] = []
    alive, budget = (1 << count) - 1, count - kept
    for row in range(count):
        if not alive >> row & 1 or len(chosen) == kept:
            continue
        against = conflicts[row] & alive
        without = alive & ~against & ~(1 << row)
        if against.bit_count() <= budget and _coverable(conflicts, without, budget - against.bit_count(), chosen):
            chosen.append(row)
            alive, budget = alive & ~against, budget - against.bit_count()
        else:
            alive, budget = alive & ~(1 << row), budget - 1
    return chosen


def _coverable(conflicts: Sequence[int], alive: int, budget: int, settled: Sequence[int] = ()) -> bool:
    """Whether leaving out at most `budget` of the `alive` rows ends all conflicts among them."""
    for row in settled:  # they have no conflict left among the alive: fewer to look at
        alive &= ~(1 << row)
    while True:
        degrees = {row: (conflicts[row] & alive).bit_count() for row in range(len(conflicts)) if alive >> row & 1}
        worst = max(degrees, key=degrees.__getitem__, default=0)
        degree = degrees.get(worst, 0)
        if degree == 0:
            return True
        if sum(degrees.values()) > 2 * budget * degree:
            return False
        single = next((row for row, number in degrees.items() if number == 1), None)
        if single is not None:  # its only opponent covers at least as much
            alive &= ~conflicts[single]
            budget -= 1
        elif degree == 2 or degree > budget:  # on a ring any row will do; too many opponents to leave them all out
            alive &= ~(1 << worst)
            budget -= 1
        else:
            return _coverable(conflicts, alive & ~(1 << worst), budget - 1) or _coverable(
                conflicts, alive & ~conflicts[worst], budget - degree
            )
