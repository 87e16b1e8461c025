"""Probation: how many rounds each member has been part of, and who is a newcomer by that.

Identities cost nothing, but to be part of rounds takes time. Until it has served as many rounds as the manifest says,
a member trains and is in groups, but newcomers make up no more than a share of a group, do not lead, and have no say in
what the next group decides (`protocols.round.electorate`). So whoever makes up identities by the thousand gets a part
of that share among honest newcomers, and nothing else, for as long as the probation lasts.

Nobody is stuck for want of seniors: seniority is relative to the last group. Who has served longest in it is no
newcomer; where nobody has served, nobody is one. Who takes part in the first epochs of a run, or of a swarm that has
come back from snapshots, is a founder and serves no probation.

What a member knows of rounds in which it was not is hearsay: a joiner takes those for seniors whom most of those
name whose state it takes. Views differ, so they decide nothing that has to be agreed upon; a leader goes by its own.
"""

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping

from protocols.identity import PeerId

MAX_PEERS = 4096
"""So many are remembered, those who were in a round last."""


class Probation:
    def __init__(self, epochs: int) -> None:
        """`epochs`: rounds until a newcomer is one no more; 0: there is no probation."""
        self._epochs = epochs
        self._founded_until = epochs
        """Until this epoch there are no newcomers, and who takes part in a round before it never was one."""
        self._served: OrderedDict[PeerId, int] = OrderedDict()

    def resume(self, epoch: int, seniors: Collection[PeerId]) -> None:
        """We come to a swarm at `epoch`, whose seniors we were told; none: it is being founded, as far as we know."""
        self._served.clear()
        self._founded_until = 0 if seniors else self._epochs + (epoch if epoch >= self._epochs else 0)
        self._note(dict.fromkeys(seniors, self._epochs))

    def count(self, epoch: int, members: Iterable[PeerId]) -> None:
        """These were the group of the round of `epoch`."""
        founding = epoch < self._founded_until
        self._note({p: self._epochs if founding else min(self._served.get(p, 0) + 1, self._epochs) for p in members})

    def seniors(self, epoch: int, group: Iterable[PeerId]) -> frozenset[PeerId] | None:
        """Who is no newcomer at `epoch`, which starts from what this `group` has made; None: nobody is one."""
        needed = max((self._served.get(peer, 0) for peer in group), default=0)
        if epoch < self._founded_until or not needed:
            return None
        return frozenset(peer for peer, rounds in self._served.items() if rounds >= needed)

    def _note(self, rounds: Mapping[PeerId, int]) -> None:
        for peer, served in rounds.items():
            self._served[peer] = served
            self._served.move_to_end(peer)
        while len(self._served) > MAX_PEERS:
            self._served.popitem(last=False)


def room_for(newcomers_share: float, seniors: int, quorum: int, group_limit: int) -> int:
    """How many newcomers go into a group beside so many `seniors`: up to the share of all, and at least one.

    Where the quorum needs more of them, the run goes on rather than that it waits for others who may never come.
    """
    by_share = newcomers_share * min(seniors / (1 - newcomers_share), group_limit)
    return max(1, int(by_share + 1e-9), quorum - seniors)
