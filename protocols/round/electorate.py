"""Who has a say in an epoch: those who made the state that it starts from, the members of the last group.

Anybody can come, train, and be in the group. But only the electorate leads, and no group decides anything that has not
half of it, as far as it lives: so strangers, however many, cannot part those who were there before them, or make
a history of their own out of ours. Who has taken part in a round is one of the electorate of the next.

In the round of cells the electorate is who may speak for each (`cells.py`), and it is cells that are counted.
"""

from collections.abc import Callable, Collection, Iterable

from protocols.identity import PeerId


class Electorate:
    def __init__(
        self,
        makers: Iterable[PeerId],
        group_limit: int,
        elders: Iterable[PeerId] = (),
        *,
        quorum: int = 1,
        is_open: bool,
        cell_of: Callable[[PeerId], int] | None = None,
    ) -> None:
        """`is_open`: nobody has made the state, it is where the run starts: everybody may lead.

        `elders`: who was there before us then. `quorum`: so many members make a group. `cell_of`: in the round of
        cells.
        """
        self.makers = frozenset(makers)
        """All of them; those who depart in order stay here, for what they have signed."""
        self.peers = set(makers)
        self.quorum = quorum
        """By what is known of the swarm now."""
        self._group_limit = group_limit
        self._is_open = is_open
        self._cell_of = cell_of
        self._elders = frozenset(elders)

    def leaders(self, able: set[PeerId]) -> set[PeerId]:
        """Those of the `able` who may lead: newcomers only where none of the electorate can."""
        return able if self._is_open or self.peers.isdisjoint(able) else able & self.peers

    def may_go_on(self, present: Iterable[PeerId]) -> bool:
        """Whether these need not wait for the others: half of the electorate, whoever of it lives.

        Of cells most: that a cell is not there as a whole is more often our line than its end.
        """
        return self.half_in(present, self.peers) if self._cell_of is None else self.most_in(present, self.peers)

    def half_in(self, members: Iterable[PeerId], living: set[PeerId]) -> bool:
        """Whether at least half of the `living` electorate is among the `members`."""
        return 2 * self._count(living.intersection(members)) >= self._most(living)

    def most_in(self, members: Iterable[PeerId], living: set[PeerId]) -> bool:
        """Whether more than half of the `living` electorate is among the `members`."""
        return 2 * self._count(living.intersection(members)) > self._most(living)

    def can_spare(self, suspended: Collection[PeerId]) -> bool:
        """Whether the others suffice without them: a quarter of the electorate, or one."""
        spared = len(self.peers.intersection(suspended))
        return spared <= max(1, len(self.peers) // 4) and len(self.peers) - spared >= self.quorum

    def with_elders(self, peers: Iterable[PeerId]) -> list[PeerId]:
        """Those of `peers` that have a say, or were there before us."""
        return [peer for peer in peers if peer in self.peers or peer in self._elders]

    def most_elders_in(self, members: Iterable[PeerId]) -> bool:
        return 2 * len(self._elders.intersection(members)) > len(self._elders)

    def _most(self, living: set[PeerId]) -> int:
        """No more than fit into a group: who has just come counts all who hold the state, not the last group alone."""
        return min(self._count(living), self._group_limit)

    def _count(self, peers: set[PeerId]) -> int:
        return len(peers) if self._cell_of is None else len(set(map(self._cell_of, peers)))
