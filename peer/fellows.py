"""Who plays with us: the members that have a state of the same vector, held against the history that we know."""

from collections.abc import Iterator, Mapping

from peer.membership import Membership
from peer.roster import Member
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

    def __iter__(self) -> Iterator[Member]:
        roster = self._membership.roster
        return (member for member in roster if member.entry.role != "monitor" and member.entry.stage == self.stage)

    @property
    def peers(self) -> list[PeerId]:
        return [member.peer for member in self]

    def companions(self) -> list[PeerId]:
        """Of the last round, who is still there."""
        return [peer for peer in self.group if self._membership.roster.get(peer) is not None]

    def audience(self) -> list[PeerId]:
        """The members whose history, as far as we know, is ours; the last group is newer than an old word of theirs."""
        oldest = min(self._heads.history, default=0)
        return [
            member.peer
            for member in self
            if (member.peer in self.group and member.epoch < oldest) or not self._contradicts(member)
        ]

    def client_modes(self) -> dict[PeerId, bool]:
        """Of the audience."""
        modes = {member.peer: member.entry.client_mode for member in self}
        return {peer: modes[peer] for peer in self.audience()}

    def expected(self, state: ModelState) -> Mapping[PeerId, bool]:
        """Who is likely to play the epoch that begins with `state`: the last group, and who says to be there, too."""
        at_same = self._membership.roster.at(state.epoch, state.digest)
        followers = set(self.audience())
        return {peer: mode for peer, mode in self.group.items() if peer in followers} | at_same

    def late(self, epoch: int) -> list[PeerId]:
        """Who comes after us, with some state of our history; a part of the last group it was not."""
        history = self._heads.history
        return [
            member.peer
            for member in self
            if member.peer not in self.group
            and member.epoch < epoch
            and member.entry.state_digest is not None
            and history.get(member.epoch) == member.entry.state_digest
        ]

    def any_unexplained(self, bans: int) -> bool:
        """Whether some member says what our history does not explain, or knows of more bans than these."""
        newest = max(self._heads.history)
        return any(
            member.entry.banned > bans
            or (member.entry.state_digest is not None and (member.epoch > newest + 1 or self._contradicts(member)))
            for member in self
        )

    def _contradicts(self, member: Member) -> bool:
        """Whether its state is none of ours, or older than all that we remember.

        An old word says nothing where we are in touch with a few. One without a state contradicts nothing.
        """
        history, digest = self._heads.history, member.entry.state_digest
        if digest is None:
            return False
        if member.epoch < min(history, default=0):
            return self._keeps_in_touch
        return history.get(member.epoch, digest) != digest
