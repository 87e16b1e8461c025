"""The roster: the live members of the run, from their own signed words."""

from collections.abc import ItemsView, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import NamedTuple

from peer.status import PeerStatus
from protocols.identity import PeerId
from protocols.records import RosterEntry
from protocols.roles import Role
from protocols.signed import Signed
from protocols.swarm.steps import come_to

MAX_MEMBERS = 2048
"""More are not taken in; of so many times REMEMBERED we know how old their last word was."""
REMEMBERED = 8
LIVE_SECONDS = 60.0
"""Who has not been heard of for so long is no member any more (the TTL of a roster record), in a small swarm."""
LIVE_SECONDS_A_MEMBER = 0.25
"""In a large one it takes longer until we get round to a member again: four times as long as `Membership` takes."""
LIVE_SECONDS_A_RECORD = 0.06
"""Where members are known by the DHT's word: three times as long as until it is looked up again."""


class Place(NamedTuple):
    """Where a member is, by its own word: most are at one of a few, however many they are."""

    epoch: int
    state_digest: bytes | None
    role: Role
    client_mode: bool
    stage: int | None
    banned: int

    @property
    def averages(self) -> bool:
        """Whether it takes part in rounds."""
        return self.role != "monitor"


@dataclass(slots=True)
class Member:
    """What a member last said of itself, and when we heard it (monotonic seconds)."""

    statement: Signed[RosterEntry]
    seen: float
    told: float = float("-inf")
    """When we last told it of ourselves."""
    failures: int = 0
    """How often in a row it could not be reached."""

    @property
    def peer(self) -> PeerId:
        return self.statement.sender

    @property
    def entry(self) -> RosterEntry:
        return self.statement.body

    @property
    def epoch(self) -> int:
        return self.statement.epoch

    @property
    def place(self) -> Place:
        entry = self.entry
        return Place(self.epoch, entry.state_digest, entry.role, entry.client_mode, entry.stage, entry.banned)

    def plays(self, epoch: int, digest: bytes) -> bool:
        """Whether it has this state, and takes part in rounds."""
        return (self.epoch, self.entry.state_digest) == (epoch, digest) and self.entry.role != "monitor"


class Roster:
    def __init__(self, me: PeerId, live_seconds_a_member: float = LIVE_SECONDS_A_MEMBER) -> None:
        self._me, self._live_seconds_a_member = me, live_seconds_a_member
        self.last_departed_epoch = 0
        """At which the member was that left last; a run may end in the very word with which its last member leaves."""
        self._members: dict[PeerId, Member] = {}
        self._at: dict[Place, dict[PeerId, None]] = {}
        """The same, by where they are."""
        self._banned: dict[PeerId, PeerStatus] = {}
        """Who was banished, as last seen."""
        self._newest: dict[PeerId, int] = {}
        """The newest sequence number of those who were here last, so that an old word brings nobody back."""

    def learn(self, statement: Signed[RosterEntry], now: float, *, directly: bool) -> bool:
        """Takes a member's word about itself; `directly`: it is alive, for it said so to us.

        True when this makes it a member that was none before.
        """
        peer = statement.sender
        if peer == self._me or peer in self._banned:
            return False
        if statement.sequence <= self._newest.get(peer, -1):
            if directly:
                self.lives(peer, now)
            return False
        if peer not in self._members and len(self._members) >= MAX_MEMBERS:
            return False
        self._newest.pop(peer, None)
        self._newest[peer] = statement.sequence  # the latest last
        if len(self._newest) > REMEMBERED * MAX_MEMBERS:
            del self._newest[next(iter(self._newest))]
        if statement.body.departed:
            if self._remove(peer) is not None and statement.body.state_digest is not None:
                self.last_departed_epoch = statement.epoch
            return False
        known = self._members.get(peer)
        member = Member(statement, now, float("-inf") if known is None else known.told)
        place, before = member.place, known.place if known is not None else None
        if place != before:
            if before is not None:
                self._leave(before, peer)
            self._at.setdefault(place, {})[peer] = None
        self._members[peer] = member
        return known is None

    def banish(self, peer: PeerId, why: str) -> str | None:
        """Forgets `peer` as a member, and remembers why; returns its name."""
        member = self._remove(peer)
        name = member.entry.name if member else None
        self._banned[peer] = PeerStatus(
            peer_id=peer,
            name=name or peer,
            role=member.entry.role if member else "trainer",
            epoch=member.epoch if member else 0,
            samples_contributed=member.entry.samples_contributed if member else 0,
            samples_per_second=0.0,
            last_seen_seconds=None,
            state_digest=None,
            banned=why,
        )
        return name

    @property
    def banned(self) -> Set[PeerId]:
        """Who was banished."""
        return self._banned.keys()

    def told(self, peer: PeerId, now: float) -> None:
        """`peer` has our word of `now`."""
        if peer in self._members:
            self._members[peer].told = now

    def lives(self, peer: PeerId, now: float) -> None:
        """`peer` has said something to us."""
        if peer in self._members:
            self._members[peer].seen, self._members[peer].failures = now, 0

    def failed(self, peer: PeerId) -> int:
        """`peer` could not be reached; how often in a row now."""
        if peer not in self._members:
            return 0
        self._members[peer].failures += 1
        return self._members[peer].failures

    def forget(self, peer: PeerId) -> None:
        self._remove(peer)

    def expire(self, now: float) -> list[PeerId]:
        """Forgets those of whom nothing was heard; returns them."""
        lifetime = max(LIVE_SECONDS, self._live_seconds_a_member * len(self._members))
        gone = [peer for peer, member in self._members.items() if now - member.seen > lifetime]
        for peer in gone:
            self._remove(peer)
        return gone

    def __iter__(self) -> Iterator[Member]:
        return iter(list(self._members.values()))

    def items(self) -> ItemsView[PeerId, Member]:
        return self._members.items()

    def __len__(self) -> int:
        return len(self._members)

    def get(self, peer: PeerId) -> Member | None:
        return self._members.get(peer)

    def at(self, epoch: int, digest: bytes) -> dict[PeerId, bool]:
        """The members with this state that take part in rounds (value: whether in client mode)."""
        return {
            peer: place.client_mode
            for place, peers in self._at.items()
            if (place.epoch, place.state_digest) == (epoch, digest) and place.averages
            for peer in peers
        }

    def places(self) -> Mapping[Place, Set[PeerId]]:
        """Where members are, and who is there."""
        return {place: peers.keys() for place, peers in self._at.items()}

    def _remove(self, peer: PeerId) -> Member | None:
        member = self._members.pop(peer, None)
        if member is not None:
            self._leave(member.place, peer)
        return member

    def _leave(self, place: Place, peer: PeerId) -> None:
        del self._at[place][peer]
        if not self._at[place]:
            del self._at[place]

    def stage_epochs(self) -> dict[int, int]:
        """In a pipeline: stage → the epoch that it has come to, by its peers' words."""
        said: dict[int, list[int]] = {}
        for member in self:
            stage = member.entry.stage
            if stage is not None and member.entry.state_digest is not None:
                said.setdefault(stage, []).append(member.epoch)
        return {stage: come_to(epochs) for stage, epochs in said.items()}

    def status(self, now: float) -> tuple[PeerStatus, ...]:
        return tuple(
            PeerStatus(
                peer_id=member.peer,
                name=member.entry.name,
                role=member.entry.role,
                epoch=member.epoch,
                samples_contributed=member.entry.samples_contributed,
                samples_per_second=member.entry.samples_per_second,
                last_seen_seconds=round(max(0.0, now - member.seen), 1),
                state_digest=member.entry.state_digest.hex() if member.entry.state_digest else None,
                stage=member.entry.stage,
                moving_to=member.entry.moving_to,
            )
            for member in sorted(self, key=lambda member: member.entry.name)
        ) + tuple(self._banned.values())
