"""What does not change during a round."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from protocols.identity import PeerId
from protocols.round.cells import cell_of, draw_of_cells, mates
from protocols.round.deadlines import Timing


@dataclass(frozen=True, slots=True)
class Setting:
    """Of one epoch, for one member."""

    run: str
    epoch: int
    base: bytes
    me: PeerId
    target_samples: int | None
    """data_parallel: the epoch closes at this many samples; None (local_sgd): when the trainers are complete."""
    chunks: int
    """Chunks of the grid."""
    microbatches: int = 0
    """In a pipeline: the epoch consists of so many, each counted by one member; nobody's update is left out then."""
    group_limit: int = 64
    quorum: int = 1
    weighs: bool = False
    """Whether the rule looks at the members' distances (`protocols.round.weighing`)."""
    byzantine: int = 0
    """f: so many members may send anything at all."""
    client_mode: bool = False
    trains: bool = True
    speed: float = 1.0
    seniors: frozenset[PeerId] | None = None
    """Who has served its probation; None: there are no newcomers (`protocols.probation`)."""
    newcomers_share: float = 0.25
    """So much of a group the newcomers make up, at most."""
    suspended: frozenset[PeerId] = frozenset()
    """Whom we, leading, neither wait for nor take into the group, where there are enough others …"""
    not_owning: frozenset[PeerId] = frozenset()
    """… and who gets no part from us (`protocols.suspension`)."""
    grace: float = 0.0
    """Seconds for which the epoch may stay open for members who follow us, and are not there yet."""
    cells: int = 0
    """Where rounds have two levels: how many cells there are (`protocols.round.cells`) …"""
    state: bytes = b""
    """… and the digest of the state that the epoch starts from; `base` is of our cell in the first level."""
    follows: bool = False
    """In the second level: another represents our cell, we take the result."""
    timing: Timing = field(default_factory=Timing)

    @property
    def is_of_one_cell(self) -> bool:
        """Whether it is the first of two levels."""
        return self.cells > 0 and self.base != self.state

    @property
    def is_of_cells(self) -> bool:
        """Whether it is the second of two levels, of one member of each cell."""
        return self.cells > 0 and self.base == self.state

    @property
    def draw(self) -> str:
        """What the order of this round is drawn by, beside its number."""
        return draw_of_cells(self.run, self.state) if self.is_of_cells else self.run

    def admits(self, peer: PeerId) -> bool:
        """Whether it may take part; in the first of two levels only who is in our cell."""
        return not self.is_of_one_cell or self.cell_of(peer) == self.cell_of(self.me)

    def admitted(self, peers: Iterable[PeerId]) -> Iterable[PeerId]:
        """Those of others who may."""
        return mates(self.state, self.cells, self.me, peers) if self.is_of_one_cell else peers

    def are_of_different_cells(self, peers: Collection[PeerId]) -> bool:
        return len(set(map(self.cell_of, peers))) == len(peers)

    def cell_of(self, peer: PeerId) -> int:
        return cell_of(self.state, self.cells, peer)

    def is_newcomer(self, peer: PeerId) -> bool:
        """Not we ourselves: who leads is in its group."""
        return self.seniors is not None and peer not in self.seniors and peer != self.me

    def awaits(self, peer: PeerId) -> bool:
        """Whether the epoch stays open for what it still trains."""
        return peer not in self.suspended and not self.is_newcomer(peer)
