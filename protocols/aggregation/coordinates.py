"""Coordinate-wise rules: each column alone, so an owner needs nothing from the others.

Each takes `rows` (n × columns, may be overwritten) and f, and gives one vector of the same type. Sums may overflow for
rows near the largest float; the caller then repeats with smaller numbers.
"""

import torch
from torch import Tensor

from protocols.aggregation.networks import order

_NONE: frozenset[int] = frozenset()


def median(rows: Tensor, f: int) -> Tensor:
    """The middle value, for even n the mean of the two (Yin et al. 2018, "Byzantine-Robust Distributed Learning",
    Definition 1). byzfl: the same."""
    count = len(rows)
    low, high = (count - 1) // 2, count // 2
    return _mean_of(order(list(rows), _NONE, frozenset({low, high})), range(low, high + 1))


def trimmed_mean(rows: Tensor, f: int) -> Tensor:
    """The mean without the f largest and the f smallest values (Yin et al. 2018, Definition 2). byzfl: the same."""
    middle = range(f, len(rows) - f)
    return _mean_of(order(list(rows), _NONE, frozenset(middle)), middle)


def meamed(rows: Tensor, f: int) -> Tensor:
    """The mean of the n − f values nearest to the median (Xie et al. 2018, "Generalized Byzantine-tolerant SGD",
    Definition 8). byzfl: the same, except that of two values equally near ours takes the smaller, byzfl either."""
    return nearest_to_median(rows, len(rows) - f)


def nearest_to_median(rows: Tensor, kept: int) -> Tensor:
    """The mean of the `kept` values nearest to the median.

    In order, they are a window, and a window of k neighbours holds exactly one of each k-th value: the nearest one.
    """
    count = len(rows)
    shut_out = count - kept
    low, high = (count - 1) // 2, count // 2
    always = frozenset(range(shut_out, kept))
    ranked = order(list(rows), frozenset(range(count)) - always | {low, high}, always)
    middle = ranked[low] if low == high else _mean_of(ranked, range(low, high + 1))
    chosen = ranked[:kept]
    for rank in range(kept, count):
        other, place = ranked[rank], rank % kept
        nearer = (other - middle).abs_() < (chosen[place] - middle).abs_()
        chosen[place] = torch.where(nearer, other, chosen[place])
    return _mean_of(chosen, range(kept))


def sign_majority(rows: Tensor, f: int) -> Tensor:
    """+1, −1 or, where as many rise as fall, 0: the sign that most rows have (Bernstein et al. 2019, "signSGD with
    Majority Vote is Communication Efficient and Fault Tolerant", Algorithm 1). byzfl has no such rule."""
    return torch.sign(torch.sign(rows).sum(dim=0))


def _mean_of(rows: list[Tensor], which: range) -> Tensor:
    total = rows[which[0]].clone()
    for index in which[1:]:
        total += rows[index]
    return total.div_(len(which))
