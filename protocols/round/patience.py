"""How much one peer may cost the others in an epoch: words are cheap, so no number of them keeps a round waiting.

That a leader lives is known by what it says; that it leads, by what comes of it. Who has said long enough that it is
alive, and has brought us no further, leads us no more in this epoch. And nobody brings us from term to term for ever.
"""

from collections import Counter
from collections.abc import Collection

from protocols.identity import PeerId
from protocols.suspension import Fault

MOST_MOVES = 16
"""So many times one peer may bring us into another term, or under another leader, within an epoch."""
PATIENCE = 6.0
"""So many times `Timing.failure` we wait for the leader's next step."""
SLOWER = 10.0
"""Others may take this many times as long as we did, for the same thing, before we give their leader up."""


class Patience:
    def __init__(self, failure_seconds: float, doubted: Collection[PeerId] = ()) -> None:
        """`doubted`: who has led nowhere before, and is waited for no longer than for a sign of life."""
        self.given_up: set[PeerId] = set()
        """Who leads us no more."""
        self.faults: dict[PeerId, Fault] = {}
        """Who has kept us waiting; of each the last of its faults."""
        self._failure_seconds, self._doubted = failure_seconds, doubted
        self._moves: Counter[PeerId] = Counter()
        self._ends_at: float | None = None

    def may_move(self, peer: PeerId) -> bool:
        return self._moves[peer] < MOST_MOVES

    def moved_by(self, peer: PeerId) -> None:
        self._moves[peer] += 1

    def wait(self, leader: PeerId, now: float, extra_seconds: float = 0.0) -> None:
        """From now on the leader is waited for, if it is not already."""
        if self._ends_at is None:
            times = 1.0 if leader in self._doubted else PATIENCE
            self._ends_at = now + times * self._failure_seconds + extra_seconds

    def relax(self) -> None:
        """The leader has brought us further, or it is another one."""
        self._ends_at = None

    def ended(self, now: float) -> bool:
        return self._ends_at is not None and now > self._ends_at

    def give_up(self, peer: PeerId) -> None:
        self.given_up.add(peer)
        self.relax()
