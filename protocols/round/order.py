"""Who leads an epoch and who stands by: an order that everybody can compute and nobody can choose."""

from collections.abc import Iterable
from functools import lru_cache

from protocols.encoding import digest, encode
from protocols.identity import PeerId

EPOCHS_KEPT = 8
"""Of so many rounds the order is remembered …"""
PEERS_KEPT = 2**14
"""… and of so many peers in each, whoever names them."""


def order(run: str, epoch: int, peers: Iterable[PeerId]) -> list[PeerId]:
    """`peers` by blake3(run, epoch, peer): the first leads, the next stands by, and takes over what another drops."""
    return sorted(set(peers), key=_places(run, epoch).__getitem__)


def first(run: str, epoch: int, peers: Iterable[PeerId]) -> PeerId:
    """Who comes first in `order`."""
    return min(peers, key=_places(run, epoch).__getitem__)


def place(run: str, epoch: int, peer: PeerId) -> bytes:
    """What `order` sorts by; lower comes first."""
    return _places(run, epoch)[peer]


class _Places(dict[PeerId, bytes]):
    """Computed when they are looked up first: each message of a round asks who comes first."""

    def __init__(self, run: str, epoch: int) -> None:
        super().__init__()
        self._run, self._epoch = run, epoch

    def __missing__(self, peer: PeerId) -> bytes:
        if len(self) >= PEERS_KEPT:
            self.clear()
        self[peer] = found = digest(b"peer/1/order\x00", encode([self._run, self._epoch, peer]))
        return found


_places = lru_cache(maxsize=EPOCHS_KEPT)(_Places)
