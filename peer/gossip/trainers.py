"""Who else trains, and how far each is: kept up with what is heard, so that an epoch costs nothing for each of them."""

from collections.abc import Mapping
from dataclasses import dataclass

from peer.roster import Member
from protocols.gossip.progress import Epochs
from protocols.identity import PeerId


@dataclass(frozen=True)
class Mixing:
    """Who has a model, this peer too, and those who are at the end: not all hear at the same time that they are."""

    peers: frozenset[PeerId]
    clients: Mapping[PeerId, bool]
    """Whether each of them is in client mode."""


class Trainers:
    def __init__(self, me: PeerId, *, client_mode: bool, end: int) -> None:
        """`end`: the epoch at which training ends."""
        self._me, self._end = me, end
        self._clients: dict[PeerId, bool] = {me: client_mode}
        self._epochs = Epochs()
        """Of those who have a state."""
        self._mixing: Mixing | None = None
        """As long as nobody comes or goes."""

    def __len__(self) -> int:
        """The others, whether they have a state or not."""
        return len(self._clients) - 1

    def hear(self, member: Member) -> None:
        """What a member says of itself."""
        peer, entry = member.peer, member.entry
        if entry.role != "trainer":
            self.forget(peer)
            return
        if self._clients.get(peer) != entry.client_mode:
            self._clients[peer] = entry.client_mode
            self._mixing = None
        if entry.state_digest is not None:
            self._come(peer, member.epoch)
        elif self._epochs.get(peer) is not None:
            self._epochs.drop(peer)
            self._mixing = None

    def met(self, peer: PeerId, epoch: int) -> None:
        """Somebody has shown in an exchange that it has come to `epoch`."""
        if self._epochs.get(peer) is not None:
            self._come(peer, epoch)

    def forget(self, peer: PeerId) -> None:
        self._epochs.drop(peer)
        if self._clients.pop(peer, None) is not None:
            self._mixing = None

    @property
    def epoch_of_most(self) -> int:
        """The newest that more than half of those with a state have come to."""
        return self._epochs.of_most()

    @property
    def mixing(self) -> Mixing:
        if self._mixing is None:
            known = (peer for peer in self._clients if peer == self._me or self._epochs.get(peer) is not None)
            clients = {peer: self._clients[peer] for peer in known}
            self._mixing = Mixing(frozenset(clients), clients)
        return self._mixing

    def trains(self, peer: PeerId) -> bool:
        """Whether it is not at the end yet, as far as we know."""
        epoch = self._epochs.get(peer)
        return epoch is not None and epoch < self._end

    def _come(self, peer: PeerId, epoch: int) -> None:
        """Words overtake each other: nobody goes back."""
        before = self._epochs.get(peer)
        if before is None or before < epoch:
            self._epochs.put(peer, epoch)
        if before is None:
            self._mixing = None
