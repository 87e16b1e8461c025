"""For how long a peer's word that it is on its way to another stage is believed. Pure: time comes in as an argument.

While somebody is on its way the others wait, and where it says to go it counts already. So who always says so would
hold up all moves, and keep an empty stage from being repaired.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from protocols.identity import PeerId
from protocols.swarm.rebalance import Load

MOVING_SECONDS = 120.0
"""So long in all, at first; a stage's state has to come over the network …"""
REGAINED = 0.1
"""… and then again for so much of the time in which the peer was not on its way."""


@dataclass(slots=True)
class _Mover:
    left: float
    """Seconds for which it is still believed."""
    looked_at: float


class Movers:
    def __init__(self) -> None:
        self._known: dict[PeerId, _Mover] = {}

    def believed(self, loads: Iterable[Load], now: float) -> list[Load]:
        """Those that are not on their way, or not for too long; who is counts for no stage."""
        loads = list(loads)
        present = {load.peer for load in loads}
        self._known = {peer: mover for peer, mover in self._known.items() if peer in present}
        return [load for load in loads if self._look(load, now) > 0 or load.moving_to is None]

    def _look(self, load: Load, now: float) -> float:
        mover = self._known.setdefault(load.peer, _Mover(MOVING_SECONDS, now))
        passed, mover.looked_at = now - mover.looked_at, now
        if load.moving_to is None:
            mover.left = min(MOVING_SECONDS, mover.left + REGAINED * passed)
        else:
            mover.left = max(0.0, mover.left - passed)
        return mover.left
