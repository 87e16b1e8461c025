"""What is a function of a peer, computed when it is looked up first: each message of a round asks, of all members."""

from collections.abc import Callable
from typing import TypeVar

from protocols.identity import PeerId

V = TypeVar("V")
PEERS_KEPT = 2**14
"""Of so many peers, whoever names them, it is remembered."""


class PeerTable(dict[PeerId, V]):
    def __init__(self, compute: Callable[[PeerId], V]) -> None:
        super().__init__()
        self._compute = compute

    def __missing__(self, peer: PeerId) -> V:
        if len(self) >= PEERS_KEPT:
            self.clear()
        self[peer] = found = self._compute(peer)
        return found
