"""How much each peer may ask for in a time: a token bucket for each. Pure: time comes in as an argument."""

from collections import OrderedDict
from dataclasses import dataclass

from protocols.identity import PeerId

MAX_PEERS = 4096


@dataclass(slots=True)
class _Bucket:
    stock: float
    filled_at: float


class Rates:
    """Remembers the MAX_PEERS that asked last; a peer that is forgotten begins anew, with a full bucket."""

    def __init__(self, per_second: float, burst: float) -> None:
        self._per_second, self._burst = per_second, burst
        self._buckets: OrderedDict[PeerId, _Bucket] = OrderedDict()

    def take(self, peer: PeerId, now: float, cost: float = 1.0) -> bool:
        """Whether `peer` may have that much more now (monotonic seconds); when not, nothing is taken."""
        bucket = self._buckets.setdefault(peer, _Bucket(self._burst, now))
        self._buckets.move_to_end(peer)
        while len(self._buckets) > MAX_PEERS:
            self._buckets.popitem(last=False)
        bucket.stock = min(self._burst, bucket.stock + (now - bucket.filled_at) * self._per_second)
        bucket.filled_at = now
        if bucket.stock < cost:
            return False
        bucket.stock -= cost
        return True
