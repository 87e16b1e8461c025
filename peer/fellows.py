"""Who plays with us: the members that have a state of the same vector, held against the history that we know.

It is looked at every second, so by the places where members are (`Place`), of which there are few, not by the members.
"""

from collections.abc import Iterator, Mapping, Set

from peer.membership import Membership
from peer.roster import Place
from peer.sync import Heads
from protocols.identity import PeerId
from protocols.state import ModelState


class Fellows:
    def __init__(self, membership: Membership, heads: Heads, stage: int | None, *, keeps_in_touch: bool) -> None:
        """`stage`: which one we serve of a pipeline. `keeps_in_touch`: whether all members tell us where they are."""
        self.stage = stage
        self.group: dict[PeerId, bool] = {}
        """The members of the last round, or those who made the state that we took; whether in client mode."""
        self.elders: frozenset[PeerId] = frozenset()
        """Who was there before us, where nobody has made the state that we start from."""
        self._membership, self._heads, self._keeps_in_touch = membership, heads, keeps_in_touch

    @property
    def peers(self) -> list[PeerId]:
        return [peer for _, peers in self._places() for peer in peers]

    def companions(self) -> list[PeerId]:
        """Of the last round, who is still there."""
        return [peer for peer in self.group if self._membership.roster.get(peer) is not None]

    def audience(self) -> list[PeerId]:
        """The members whose history, as far as we know, is ours; the last group is newer than an old word of theirs."""
        return list(self.client_modes())

    def client_modes(self) -> dict[PeerId, bool]:
        """Of the audience."""
        oldest = min(self._heads.history, default=0)
        modes: dict[PeerId, bool] = {}
        for place, peers in self._places():
            if not self._contradicts(place):
                modes |= dict.fromkeys(peers, place.client_mode)
            elif place.epoch < oldest:
                modes |= {peer: place.client_mode for peer in peers if peer in self.group}
        return modes

    def expected(self, state: ModelState) -> Mapping[PeerId, bool]:
        """Who is likely to play the epoch that begins with `state`: the last group, and who says to be there, too."""
        at_same = self._membership.roster.at(state.epoch, state.digest)
        followers = set(self.audience())
        return {peer: mode for peer, mode in self.group.items() if peer in followers} | at_same

    def late(self, epoch: int) -> list[PeerId]:
        """Who comes after us, with some state of our history; a part of the last group it was not."""
        history = self._heads.history
        return [
            peer
            for place, peers in self._places()
            if place.epoch < epoch and place.state_digest is not None and history.get(place.epoch) == place.state_digest
            for peer in peers
            if peer not in self.group
        ]

    def any_unexplained(self, bans: int) -> bool:
        """Whether some member says what our history does not explain, or knows of more bans than these."""
        newest = max(self._heads.history)
        return any(
            place.banned > bans
            or (place.state_digest is not None and (place.epoch > newest + 1 or self._contradicts(place)))
            for place, _ in self._places()
        )

    def any_ahead(self, epoch: int) -> bool:
        """Whether some member says to have come to the next epoch, or beyond it."""
        return any(place.epoch > epoch and place.state_digest is not None for place, _ in self._places())

    def _places(self) -> Iterator[tuple[Place, Set[PeerId]]]:
        """Of those who average what we do."""
        places = self._membership.roster.places()
        return ((place, peers) for place, peers in places.items() if place.averages and place.stage == self.stage)

    def _contradicts(self, place: Place) -> bool:
        """Whether its state is none of ours, or older than all that we remember.

        An old word says nothing where we are in touch with a few. One without a state contradicts nothing.
        """
        history, digest = self._heads.history, place.state_digest
        if digest is None:
            return False
        if place.epoch < min(history, default=0):
            return self._keeps_in_touch
        return history.get(place.epoch, digest) != digest
