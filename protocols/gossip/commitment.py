"""Both or neither: when the two sides of an exchange apply their shifts.

    caller   offered ──── callee's model and Prepared are here ──▶ committed: applies its shift, says Commit
                └──────── it broke, took too long, or was asked ─▶ given up: nothing changes
    callee   accepted ─── caller's model is here ────────────────▶ prepared: keeps its shift, says Prepared
                └──────── it broke ──────────────────────────────▶ nothing changes
             prepared ─── Commit ────────────────────────────────▶ applies its shift
                └──────── it broke ──▶ in doubt: asks the caller what it has decided, and applies its shift or drops it

The caller decides alone, and once: whoever asks before it has, makes it give up. Nobody waits meanwhile, for a shift
may be applied at any later time (`protocols.gossip.mixing`); what is in doubt costs memory, and is therefore bounded.

What holds: a shift is applied whole or not at all. As long as both processes live and hear of each other again before
one is taken for gone, both apply theirs or neither does. A caller that lives and does not say what it has decided is
taken for gone, too, after a while. When the caller dies between its decision and the callee's hearing of it, the callee
drops its shift; the caller's own went with its memory, unless a snapshot of just then has it. When the callee dies the
caller has applied its shift or not, and what the other would have gained is lost with it, as is all else that it had.
"""

from collections import OrderedDict
from typing import Generic, TypeVar

from protocols.identity import PeerId

REMEMBERED = 8192
"""Decisions, the newest; a callee asks within a minute or two."""
MOST_IN_DOUBT = 4

Shift = TypeVar("Shift")


class Decisions:
    """What a caller has decided of its exchanges."""

    def __init__(self) -> None:
        self._begun: OrderedDict[bytes, tuple[PeerId, bool | None]] = OrderedDict()
        """Exchange → with whom, and whether it is committed; None: not decided yet."""

    def __len__(self) -> int:
        return len(self._begun)

    def begin(self, exchange: bytes, callee: PeerId) -> None:
        """From now on `callee` may be prepared for it."""
        self._begun[exchange] = callee, None
        while len(self._begun) > REMEMBERED:
            self._begun.popitem(last=False)

    def commit(self, exchange: bytes) -> bool:
        """Decides for it; False when it has been given up already."""
        return self._decide(exchange, True)

    def give_up(self, exchange: bytes) -> None:
        """Decides against it, unless it is committed."""
        self._decide(exchange, False)

    def answer(self, exchange: bytes, asker: PeerId) -> bool:
        """To a callee in doubt: whether it is committed. What was not decided is given up by the question."""
        callee, _ = self._begun.get(exchange, (None, None))
        return callee == asker and self._decide(exchange, False)

    def _decide(self, exchange: bytes, commit: bool) -> bool:
        """Whether it is committed, now that it is decided."""
        if exchange not in self._begun:
            return False
        callee, committed = self._begun[exchange]
        if committed is None:
            committed = commit
            self._begun[exchange] = callee, committed
        return committed


class Prepared(Generic[Shift]):
    """The shifts for which a callee is prepared, by exchange."""

    def __init__(self) -> None:
        self._shifts: dict[bytes, Shift] = {}

    def __len__(self) -> int:
        return len(self._shifts)

    @property
    def full(self) -> bool:
        """Whether so many are in doubt that no further exchange should be accepted."""
        return len(self._shifts) >= MOST_IN_DOUBT

    def prepare(self, exchange: bytes, shift: Shift) -> None:
        self._shifts[exchange] = shift

    def settle(self, exchange: bytes, *, committed: bool) -> Shift | None:
        """What is to be applied now: the shift when it is committed, and once only."""
        shift = self._shifts.pop(exchange, None)
        return shift if committed else None
