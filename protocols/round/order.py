"""Who leads an epoch and who stands by: an order that everybody can compute and nobody can choose."""

from collections.abc import Iterable
from functools import lru_cache

from protocols.encoding import digest, encode
from protocols.identity import PeerId


def order(run: str, epoch: int, peers: Iterable[PeerId]) -> list[PeerId]:
    """`peers` by blake3(run, epoch, peer): the first leads, the next stands by, and takes over what another drops."""
    return sorted(set(peers), key=lambda peer: place(run, epoch, peer))


def first(run: str, epoch: int, peers: Iterable[PeerId]) -> PeerId:
    """Who comes first in `order`."""
    return min(peers, key=lambda peer: place(run, epoch, peer))


@lru_cache(maxsize=2**16)
def place(run: str, epoch: int, peer: PeerId) -> bytes:
    """What `order` sorts by; lower comes first."""
    return digest(b"peer/1/order\x00", encode([run, epoch, peer]))
