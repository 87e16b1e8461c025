"""How long an exchange may take, and for how long a peer with whom it failed is left alone.

Training goes on meanwhile, but a peer has room for few exchanges at a time. So one that takes far longer than the last
ones is given up; and each failure costs its peer a pause that is longer than what it cost us, twice as long each time.
"""

from collections import OrderedDict, deque
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
SHORTEST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 300.0
MAX_PEERS = 4096


class Patience:
    def __init__(self) -> None:
        self._took: deque[float] = deque(maxlen=REMEMBERED_EXCHANGES)
        self._failures: OrderedDict[PeerId, tuple[int, float]] = OrderedDict()
        """Peer → how often in a row, and until when it is left alone."""

    @property
    def usual_seconds(self) -> float:
        """Of the last exchanges; 0 when there were none."""
        return median(self._took) if self._took else 0.0

    @property
    def limit_seconds(self) -> float:
        """When to give an exchange up."""
        return max(LEAST_SECONDS, TIMES_USUAL * self.usual_seconds) if self._took else FIRST_SECONDS

    @property
    def silence_seconds(self) -> float:
        """How long a peer may send nothing within an exchange."""
        usual = max(LEAST_SILENCE_SECONDS, TIMES_USUAL * self.usual_seconds)
        return min(FIRST_SILENCE_SECONDS, usual) if self._took else FIRST_SILENCE_SECONDS

    def succeeded(self, peer: PeerId, seconds: float) -> None:
        self._took.append(seconds)
        self._failures.pop(peer, None)

    def failed(self, peer: PeerId, now: float, seconds: float) -> None:
        """An exchange with `peer` has come to nothing after that long."""
        times, _ = self._failures.pop(peer, (0, 0.0))
        pause = max(SHORTEST_PAUSE_SECONDS, 2 * seconds) * 2.0 ** min(times, 16)
        self._failures[peer] = times + 1, now + min(LONGEST_PAUSE_SECONDS, pause)
        while len(self._failures) > MAX_PEERS:
            self._failures.popitem(last=False)

    def leaves_alone(self, peer: PeerId, now: float) -> bool:
        _, until = self._failures.get(peer, (0, now))
        return now < until
