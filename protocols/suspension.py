"""Suspensions: what cannot be proved costs the group's company for a while, and never more.

A member that does not come, keeps its part to itself, or leads nowhere costs the others seconds each time; but so does
an honest one that has crashed or sits behind a bad line, and nobody can tell which. So nobody is banned for it. Each
member keeps accounts of its own, from what it has seen itself: faults are demerits, a round that is completed halves
them. At LIMIT a peer is suspended for one epoch, then two, four, eight … with repetition: whoever disturbs always does
it more and more seldom, and whoever works well is soon as good as new.

Who is suspended is not waited for, and in no group of ours as long as there are enough others; it follows, and its work
counts again afterwards. It owns no part for as long again. Pure: epochs count the time.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from protocols.identity import PeerId

LIMIT = 1.25
"""Two rounds in a row that it has spoilt, or two of three."""
ON_RETURN = 0.6
"""What is left when a suspension begins, so that the next fault soon after it is one too many."""
LONGEST_EPOCHS = 64
FORGIVING_EPOCHS = 8
"""So many good rounds in a row take one suspension back, as far as the next one's length is concerned."""
MAX_PEERS = 4096


class Fault(StrEnum):
    ABSENT = "absent"
    """Was awaited by us, who led, and did not come; or led, and said nothing."""
    WITHHELD = "withheld"
    """Gave no result of its part, or nothing of its update to ours."""
    ASTRAY = "astray"
    """Led, and brought us no further."""
    CONTRADICTED = "contradicted"
    """In a pipeline: was not ready with what it had said to have counted."""
    SLOW = "slow"
    """Was left out of a part that we own for sending too slowly: this costs little time."""


DEMERITS = {Fault.ABSENT: 1.0, Fault.WITHHELD: 1.0, Fault.ASTRAY: 1.0, Fault.CONTRADICTED: 1.0, Fault.SLOW: 0.25}
"""For a round, whatever else it did in it. SLOW in every round adds up to half a demerit, and to no suspension."""


@dataclass(slots=True)
class _Account:
    demerits: float = 0.0
    suspensions: int = 0
    """How many are remembered."""
    good: int = 0
    """Rounds in a row without a fault."""
    suspended_until: int = 0
    """The first epoch in which it is not."""
    owns_from: int = 0


class Suspensions:
    """The accounts of those who have ever been at fault, the MAX_PEERS last."""

    def __init__(self) -> None:
        self._accounts: OrderedDict[PeerId, _Account] = OrderedDict()

    def settle(self, epoch: int, members: Iterable[PeerId], faults: Mapping[PeerId, Fault]) -> list[PeerId]:
        """The round of `epoch` is over: these were its group, and these at fault. Returns whom that suspends."""
        worked = set(members)
        for peer in worked & self._accounts.keys():
            self._work(peer, self._accounts[peer], epoch, good=peer not in faults)
        return [peer for peer, fault in faults.items() if self._charge(peer, fault, epoch)]

    def left(self, epoch: int) -> dict[PeerId, int]:
        """Who is suspended in `epoch`, and for how many epochs from then on.

        None is for longer than there are suspensions: not even where we have taken a history that is not as far.
        """
        left = {peer: account.suspended_until - epoch for peer, account in self._accounts.items()}
        return {peer: epochs for peer, epochs in left.items() if 0 < epochs <= LONGEST_EPOCHS}

    def not_owning(self, epoch: int) -> frozenset[PeerId]:
        """Who gets no part in `epoch`: the suspended, and for as long again who was."""
        accounts = self._accounts.items()
        return frozenset(peer for peer, a in accounts if 0 < a.owns_from - epoch <= 2 * LONGEST_EPOCHS)

    def _work(self, peer: PeerId, account: _Account, epoch: int, *, good: bool) -> None:
        if 0 < account.owns_from - epoch <= 2 * LONGEST_EPOCHS:
            return  # who is trusted with nothing shows nothing by it
        account.demerits /= 2
        account.good = account.good + 1 if good else 0
        if account.good >= FORGIVING_EPOCHS and account.suspensions:
            account.good, account.suspensions = 0, account.suspensions - 1
        if account.good >= FORGIVING_EPOCHS:
            del self._accounts[peer]

    def _charge(self, peer: PeerId, fault: Fault, epoch: int) -> bool:
        account = self._accounts.setdefault(peer, _Account())
        self._accounts.move_to_end(peer)
        while len(self._accounts) > MAX_PEERS:
            self._accounts.popitem(last=False)
        if 0 < account.suspended_until - epoch <= LONGEST_EPOCHS:
            return False
        account.good = 0
        account.demerits += DEMERITS[fault]
        if account.demerits < LIMIT:
            return False
        epochs = min(2**account.suspensions, LONGEST_EPOCHS)
        account.demerits = ON_RETURN
        account.suspensions = min(account.suspensions + 1, LONGEST_EPOCHS.bit_length())
        account.suspended_until = epoch + 1 + epochs
        account.owns_from = account.suspended_until + epochs
        return True
