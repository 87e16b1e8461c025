"""How long an exchange may take, and for how long a peer with whom it failed is left alone.

Training goes on meanwhile, but a peer has room for few exchanges at a time. So one that takes far longer than the last
ones is given up; and each failure costs its peer a pause that is longer than what it cost us, twice as long each time.
"""

from collections import OrderedDict, deque
from dataclasses import dataclass
from statistics import median

from protocols.identity import PeerId

FIRST_SECONDS = 120.0
"""For an exchange, as long as nothing is known."""
LEAST_SECONDS = 6.0
TIMES_USUAL = 6.0
FIRST_SILENCE_SECONDS = 10.0
"""For the next frame, as long as nothing is known, and at most."""
LEAST_SILENCE_SECONDS = 3.0
REMEMBERED_EXCHANGES = 32
FORGIVING_EXCHANGES = 8
"""So many good ones in a row make up for one failure: who fails now and then on purpose gains little by it."""
SHORTEST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 300.0
SLOW = 3.0
"""A caller who takes so many times as long as usual is not taken again …"""
RESTS = 4.0
"""… for so many times as long as it took: what it keeps from the others stays a part."""
MAX_PEERS = 4096


@dataclass(slots=True)
class _Account:
    """Of a peer with whom an exchange has failed."""

    failures: int = 0
    good: int = 0
    """Exchanges that did not fail since."""
    until: float = 0.0
    """When it is not left alone any more."""


class Patience:
    def __init__(self) -> None:
        self._took: deque[float] = deque(maxlen=REMEMBERED_EXCHANGES)
        self.usual_seconds = 0.0
        """Of the last exchanges; 0 when there were none."""
        self._accounts: OrderedDict[PeerId, _Account] = OrderedDict()
        self._rest_until: OrderedDict[PeerId, float] = OrderedDict()
        """Of callers that were slow."""

    def __len__(self) -> int:
        """Peers with whom an exchange has failed, and was not forgiven yet."""
        return len(self._accounts)

    @property
    def limit_seconds(self) -> float:
        """When to give an exchange up; never later than at first, whatever others have made usual."""
        usual = max(LEAST_SECONDS, TIMES_USUAL * self.usual_seconds)
        return min(FIRST_SECONDS, usual) if self._took else FIRST_SECONDS

    @property
    def silence_seconds(self) -> float:
        """How long a peer may send nothing within an exchange."""
        usual = max(LEAST_SILENCE_SECONDS, TIMES_USUAL * self.usual_seconds)
        return min(FIRST_SILENCE_SECONDS, usual) if self._took else FIRST_SILENCE_SECONDS

    def succeeded(self, peer: PeerId, seconds: float) -> None:
        self._took.append(seconds)
        self.usual_seconds = median(self._took)
        if (account := self._accounts.get(peer)) is None:
            return
        account.good += 1
        if account.good == FORGIVING_EXCHANGES:
            account.good, account.failures = 0, account.failures - 1
        if account.failures <= 0:
            del self._accounts[peer]

    def failed(self, peer: PeerId, now: float, seconds: float) -> None:
        """An exchange with `peer` has come to nothing after that long."""
        account = self._accounts.setdefault(peer, _Account())
        self._accounts.move_to_end(peer)
        pause = max(SHORTEST_PAUSE_SECONDS, 2 * seconds) * 2.0 ** min(account.failures, 16)
        account.failures, account.good = account.failures + 1, 0
        account.until = now + min(LONGEST_PAUSE_SECONDS, pause)
        while len(self._accounts) > MAX_PEERS:
            self._accounts.popitem(last=False)

    def was_called(self, peer: PeerId, now: float, seconds: float) -> None:
        """`peer` has held a room for that long, whatever has come of it."""
        if seconds < max(SHORTEST_PAUSE_SECONDS, SLOW * self.usual_seconds):
            return
        self._rest_until[peer] = now + RESTS * seconds
        self._rest_until.move_to_end(peer)
        while len(self._rest_until) > MAX_PEERS:
            self._rest_until.popitem(last=False)

    def may_call(self, peer: PeerId, now: float) -> bool:
        """Neither was it slow, nor has an exchange with it failed, not long ago."""
        return now >= self._rest_until.get(peer, now) and not self.leaves_alone(peer, now)

    def leaves_alone(self, peer: PeerId, now: float) -> bool:
        account = self._accounts.get(peer)
        return account is not None and now < account.until
