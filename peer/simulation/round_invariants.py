"""What must hold in runs with rounds, beside what must in all.

- Peers at one epoch have one state. Who differs from most (cut off, or come late) must soon have taken their history.
- No sample is counted twice, and none that was not trained on.
"""

from collections.abc import Callable, Collection
from typing import Any

from peer.rounds.session import RoundOutcome
from peer.simulation.invariants import Invariants
from peer.simulation.swarm import SimulatedPeer
from protocols.identity import PeerId

REMEMBERED_EPOCHS = 64


class RoundInvariants(Invariants):
    def __init__(self, *looked_at: Any) -> None:
        """`looked_at`: as `Invariants` takes it."""
        super().__init__(*looked_at)
        self._histories: dict[int, dict[bytes, set[int]]] = {}
        """By epoch and digest of the state: whose it was, as far as they have not given it up since."""
        self._astray_since: dict[int, float] = {}
        """By number: since when a peer's history is another than that of most."""

    def started(self, peer: SimulatedPeer, now: float) -> None:
        super().started(peer, now)
        self._astray_since.pop(peer.number, None)
        self._forget(peer)

    def resynced(self, peer: SimulatedPeer) -> None:
        super().resynced(peer)
        self._forget(peer)

    def came_to(self, peer: SimulatedPeer, epoch: int, state: bytes, now: float) -> None:
        super().came_to(peer, epoch, state, now)
        states = self._histories.setdefault(epoch, {})
        states.setdefault(state, set()).add(peer.number)
        if self._check.agree_within == 0 and len(states) > 1:
            self._violated(peer, now, f"has another state at epoch {epoch} than others")
        while len(self._histories) > REMEMBERED_EPOCHS:
            del self._histories[min(self._histories)]

    def counted(self, peer: SimulatedPeer, now: float, outcome: RoundOutcome, trained: int) -> None:
        """A round that `peer` has finished, and how many samples it has trained on for it."""
        names = [member.peer for member in outcome.group]
        if len(set(names)) < len(names):
            self._violated(peer, now, "somebody is named twice in a group, and counted twice")
        counted = [outcome.weight, *(member.weight for member in outcome.group if member.peer == peer.peer)]
        if max(counted) > trained:
            self._violated(peer, now, f"{max(counted)} samples were counted for it, and it has trained on {trained}")

    def look(self, peers: Collection[SimulatedPeer], now: float, connections: Callable[[PeerId], int]) -> None:
        super().look(peers, now, connections)
        astray, parted = self._astray(), self._parted(now)
        for peer in peers:
            if peer.number not in astray:
                self._astray_since.pop(peer.number, None)
            elif peer.number not in self._astray_since or parted:
                self._astray_since[peer.number] = now
            elif (seconds := now - self._astray_since[peer.number]) > self._check.agree_within:
                self._violated(peer, now, f"keeps to another history than most, for {seconds:.0f} s")

    def _forget(self, peer: SimulatedPeer) -> None:
        """It begins anew: its states are what it comes to from now on."""
        for states in self._histories.values():
            for tellers in states.values():
                tellers.discard(peer.number)

    def _astray(self) -> set[int]:
        """Who has been in another state at some epoch than most have."""
        astray: set[int] = set()
        for states in self._histories.values():
            if len(states) > 1:
                most = max(states, key=lambda state: len(states[state]))
                astray.update(*(tellers for state, tellers in states.items() if state != most))
        return astray
