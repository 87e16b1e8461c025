"""How far peers are relied upon to move. Pure: time comes in as an argument.

While somebody is on its way to another stage the others wait, and where it says to go it counts already. So who always
says so would hold up all moves, and keep an empty stage from being repaired. And all come to the same mover, and wait
for it: so would who never goes when it is its turn. Both are believed for a while.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from protocols.identity import PeerId
from protocols.swarm.rebalance import Load

MOVING_SECONDS = 120.0
"""On its way for so long in all, at first; a stage's state has to come over the network …"""
REGAINED = 0.1
"""… and then again for so much of the time in which the peer was not on its way."""
CALLED_SECONDS = 20.0
"""Whose turn it was for so long in all, and has not gone, is not waited for: longer than its own records take, and than
it rests if it has just moved."""


@dataclass(slots=True)
class _Mover:
    stage: int
    looked_at: float
    left: float = MOVING_SECONDS
    """Seconds for which it is still believed to be on its way."""
    called: float = 0.0
    """Seconds for which it was its turn, less what is forgotten of them."""

    @property
    def is_deaf(self) -> bool:
        return self.called >= CALLED_SECONDS


class Movers:
    def __init__(self) -> None:
        self._known: dict[PeerId, _Mover] = {}
        self._called: PeerId | None = None

    def believed(self, loads: Iterable[Load], now: float) -> list[Load]:
        """Those that are not on their way, or not for too long; who is counts for no stage. Who does not go when it is
        to stays where it is, until it has gone after all."""
        loads = list(loads)
        present = {load.peer for load in loads}
        self._known = {peer: mover for peer, mover in self._known.items() if peer in present}
        movers = [(load, self._look(load, now)) for load in loads]
        return [
            replace(load, stays=load.stays or mover.is_deaf)
            for load, mover in movers
            if load.moving_to is None or mover.left > 0
        ]

    def call(self, peer: PeerId | None) -> None:
        """It is its turn to move, from now until somebody else is called; None: nobody's."""
        self._called = peer

    def _look(self, load: Load, now: float) -> _Mover:
        mover = self._known.setdefault(load.peer, _Mover(load.stage, now))
        passed, mover.looked_at = now - mover.looked_at, now
        if load.moving_to is None:
            mover.left = min(MOVING_SECONDS, mover.left + REGAINED * passed)
        else:
            mover.left = max(0.0, mover.left - passed)
        if load.stage != mover.stage:  # not when it says to go, which it may say for ever
            mover.called = 0.0
        elif load.peer == self._called:
            mover.called += passed
        elif not mover.is_deaf:
            mover.called = max(0.0, mover.called - REGAINED * passed)
        mover.stage = load.stage
        return mover
