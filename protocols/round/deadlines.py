"""How long to wait for the slowest: as long as the arrivals so far make it likely that they still come."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Timing:
    """The seconds that a round counts in."""

    resend: float = 1.0
    """A message that is not answered is said again after this long."""
    straggler: float = 3.0
    """The least that a straggler is waited for beyond the median of those who came."""
    failure: float = 10.0
    """Who is silent for this long, though asked, is taken for dead until heard from again."""
    spread: float = 6.0
    """k: how many median absolute deviations beyond the median still count as ordinary."""
    slack: float = 0.5
    """Most of the senders of a part may stand still for one that sends slowly, for so long …"""
    slower: float = 1.4
    """… and until the part takes so many times as long as the middle sender needs, …"""
    uneven: float = 2.0
    """… or so many times, while the slow one …"""
    far_slower: float = 5.0
    """… does not take so many times as long for a chunk."""


def straggler_deadline(arrivals: Sequence[float], awaited: int, timing: Timing) -> float:
    """When to go on without those who have not come (seconds since the wait began).

    `arrivals` are the seconds after which the others came, `awaited` how many there are in all. While not more than
    half have come this is `timing.failure`; from then on median + k·MAD of the arrivals, and at least
    `timing.straggler` beyond the median.
    """
    if 2 * len(arrivals) <= awaited:
        return timing.failure
    middle = median(arrivals)
    deviation = median(abs(arrival - middle) for arrival in arrivals)
    return middle + min(timing.failure, max(timing.straggler, timing.spread * deviation))
