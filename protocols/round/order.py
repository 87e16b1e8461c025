"""Who leads an epoch and who stands by: an order that everybody can compute and nobody can choose."""

from collections.abc import Iterable
from functools import lru_cache

from protocols.encoding import digest, encode
from protocols.identity import PeerId
from protocols.round.tables import PeerTable

EPOCHS_KEPT = 8
"""Of so many rounds the order is remembered."""


def order(run: str, epoch: int, peers: Iterable[PeerId]) -> list[PeerId]:
    """`peers` by blake3(run, epoch, peer): the first leads, the next stands by, and takes over what another drops."""
    return sorted(set(peers), key=_places(run, epoch).__getitem__)


def first(run: str, epoch: int, peers: Iterable[PeerId]) -> PeerId:
    """Who comes first in `order`."""
    return min(peers, key=_places(run, epoch).__getitem__)


def place(run: str, epoch: int, peer: PeerId) -> bytes:
    """What `order` sorts by; lower comes first."""
    return _places(run, epoch)[peer]


@lru_cache(maxsize=EPOCHS_KEPT)
def _places(run: str, epoch: int) -> PeerTable[bytes]:
    return PeerTable(lambda peer: digest(b"peer/1/order\x00", encode([run, epoch, peer])))
