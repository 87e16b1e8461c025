"""Charges that wait to be looked into, those first whose accusers have taken least of our time so far.

To look into one takes as long as the work that it is about, and as its evidence is in coming: somebody who makes
charges and is slow to show anything would else keep all others from being heard. Pure: time comes in as an argument.
"""

from collections import OrderedDict, deque
from typing import Generic, TypeVar

from protocols.identity import PeerId

Charge = TypeVar("Charge")
REMEMBERED = 4096
"""Accusers, of whom it is known what time they have taken."""


class Docket(Generic[Charge]):
    def __init__(self, most: int, of_one: int) -> None:
        """`most` wait; `of_one`: and of one accuser, the one that is looked into counted."""
        self._most, self._of_one = most, of_one
        self._waiting: dict[PeerId, deque[Charge]] = {}
        self._heard: PeerId | None = None
        """Whose charge is looked into."""
        self._spent: OrderedDict[PeerId, float] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def put(self, accuser: PeerId, charge: Charge) -> bool:
        """Whether it waits now. Where too many do, one gives way of an accuser that has taken more time."""
        if len(self._waiting.get(accuser, ())) + (accuser == self._heard) >= self._of_one:
            return False
        if len(self) >= self._most:
            costly = max(self._waiting, key=self._time_of)
            if self._time_of(costly) <= self._time_of(accuser):
                return False
            self._take_of(costly)
        self._waiting.setdefault(accuser, deque()).append(charge)
        return True

    def take(self) -> Charge | None:
        """The next to be looked into, if there is one; `done` says when it has been."""
        if not self._waiting:
            return None
        self._heard = min(self._waiting, key=self._time_of)
        return self._take_of(self._heard)

    def done(self, seconds: float) -> None:
        """So long it has taken."""
        assert self._heard is not None
        self._spent[self._heard] = self._time_of(self._heard) + seconds
        self._spent.move_to_end(self._heard)
        while len(self._spent) > REMEMBERED:
            self._spent.popitem(last=False)
        self._heard = None

    def _take_of(self, accuser: PeerId) -> Charge:
        waiting = self._waiting[accuser]
        charge = waiting.popleft()
        if not waiting:
            del self._waiting[accuser]
        return charge

    def _time_of(self, accuser: PeerId) -> float:
        return self._spent.get(accuser, 0.0)
