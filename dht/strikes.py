"""Strikes: a peer that keeps sending what no honest peer sends is disconnected, and refused for a while.

What honest peers send by accident, when messages cross or arrive late, weighs little, as does a failure of our own
handler; being busy, not having what was asked for, and not being admitted, is nobody's fault.
Pure: time comes in as an argument.
"""

from collections import OrderedDict, deque
from dataclasses import dataclass, field

from protocols.identity import PeerId
from protocols.rejection import Reason

WINDOW_SECONDS = 60.0
SUSPENSION_SECONDS = 60.0
MAX_WEIGHT = 256
MAX_PEERS = 4096

_WEIGHT_OF_BAD_INPUT = 8
_WEIGHTS: dict[str, int] = {
    Reason.BUSY: 0,
    Reason.ABSENT: 0,
    Reason.NOT_ADMITTED: 0,
    Reason.BANNED: 0,
    Reason.STALE: 1,
    Reason.REPLAYED: 1,
    Reason.UNEXPECTED: 1,
    Reason.WRONG_RUN: 1,
    "handler_failed": 1,
}


@dataclass(slots=True)
class _Account:
    charges: deque[tuple[float, int]] = field(default_factory=deque)
    weight: int = 0
    suspended_until: float = float("-inf")


class Strikes:
    """Who was charged with how much in the last WINDOW_SECONDS; remembers the MAX_PEERS charged last."""

    def __init__(self) -> None:
        self._accounts: OrderedDict[PeerId, _Account] = OrderedDict()

    def charge(self, peer: PeerId, reason: str, now: float) -> bool:
        """Charges a refusal to `peer`; True when this is the one that suspends it. `now`: monotonic seconds."""
        weight = _WEIGHTS.get(reason, _WEIGHT_OF_BAD_INPUT)
        if not weight:
            return False
        account = self._accounts.setdefault(peer, _Account())
        self._accounts.move_to_end(peer)
        while len(self._accounts) > MAX_PEERS:
            self._accounts.popitem(last=False)
        account.charges.append((now, weight))
        account.weight += weight
        while account.charges[0][0] < now - WINDOW_SECONDS:
            account.weight -= account.charges.popleft()[1]
        if account.weight <= MAX_WEIGHT or now < account.suspended_until:
            return False
        account.suspended_until = now + SUSPENSION_SECONDS
        account.charges.clear()
        account.weight = 0
        return True

    def suspended(self, peer: PeerId, now: float) -> bool:
        account = self._accounts.get(peer)
        return account is not None and now < account.suspended_until
