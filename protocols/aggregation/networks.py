"""Sorting networks: columns of a few rows are sorted by minima and maxima of whole rows, which vectorise.

Batcher's odd-even merge sort (Batcher 1968, "Sorting networks and their applications"), without the comparators that
the wanted ranks do not need. For the few rows of a group it is many times faster than sorting each column.
"""

from functools import lru_cache

import torch
from torch import Tensor

Comparator = tuple[int, int, bool, bool]
"""Two ranks (low, high), and whether the minimum and the maximum are wanted afterwards."""


def order(rows: list[Tensor], exact: frozenset[int], together: frozenset[int]) -> list[Tensor]:
    """The rows such that, column by column, the wanted ranks (0 is the smallest) are in place.

    `rows` are n vectors of equal length that may be overwritten. Ranks in `exact` stand where they belong; those in
    `together` stand at these places in any order, as a sum of them needs; at other places stands anything.
    """
    rows = list(rows)
    spare = torch.empty_like(rows[0])
    for low, high, minimum, maximum in _network(len(rows), exact, together):
        if minimum and maximum:
            torch.minimum(rows[low], rows[high], out=spare)
            torch.maximum(rows[low], rows[high], out=rows[high])
            rows[low], spare = spare, rows[low]
        elif minimum:
            torch.minimum(rows[low], rows[high], out=rows[low])
        else:
            torch.maximum(rows[low], rows[high], out=rows[high])
    return rows


@lru_cache(maxsize=256)
def _network(count: int, exact: frozenset[int], together: frozenset[int]) -> tuple[Comparator, ...]:
    """From the last comparator to the first: which of its outputs does a later comparator or the result look at?"""
    single, shared = set(exact), set(together) - exact
    kept: list[Comparator] = []
    for low, high in reversed(_batcher(count)):
        wanted = single | shared
        if (low in shared and high in shared) or (low not in wanted and high not in wanted):
            continue
        kept.append((low, high, low in wanted, high in wanted))
        single |= {low, high}
        shared -= {low, high}
    return tuple(reversed(kept))


def _batcher(count: int) -> list[tuple[int, int]]:
    comparators = []
    span = 1
    while span < count:
        step = span
        while step >= 1:
            for first in range(step % span, count - step, 2 * step):
                for low in range(first, min(first + step, count - step)):
                    if low // (2 * span) == (low + step) // (2 * span):
                        comparators.append((low, low + step))
            step //= 2
        span *= 2
    return comparators
