"""What the members of a churn say of the run: epochs, rounds, and whether all tell one history."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from itertools import pairwise

from churn_fleet import Member


@dataclass(frozen=True, slots=True)
class Split:
    """Two states of one epoch."""

    epoch: int
    members: dict[str, list[str]]
    """Digest → who has shown it."""


@dataclass
class Progress:
    """When the swarm came to each epoch."""

    moments: list[tuple[float, int]] = field(default_factory=list)
    """Seconds and epoch, whenever somebody has reached a new one."""

    def note(self, seconds: float, epoch: int) -> None:
        if epoch > (self.moments[-1][1] if self.moments else -1):
            self.moments.append((round(seconds, 1), epoch))

    def epochs(self) -> int:
        return self.moments[-1][1] - self.moments[0][1] if self.moments else 0

    def longest_pause_seconds(self, begin: float, end: float) -> float:
        """The longest time between the two in which nobody came to a new epoch."""
        moments = [begin, *(seconds for seconds, _ in self.moments if begin < seconds < end), end]
        return max(after - before for before, after in pairwise(moments))


def splits(members: Iterable[Member]) -> list[Split]:
    """All epochs of which more than one state was ever shown."""
    shown: dict[int, dict[str, list[str]]] = {}
    for member in members:
        for epoch, digests in member.watcher.digests.items():
            for digest in digests:
                shown.setdefault(epoch, {}).setdefault(digest, []).append(member.daemon.name)
    return [Split(epoch, digests) for epoch, digests in sorted(shown.items()) if len(digests) > 1]


def agreed(members: Collection[Member], after: int) -> tuple[int, str] | None:
    """The first epoch after that one of which all have shown the same state, and its digest."""
    histories = [dict(member.watcher.digests) for member in members]
    if not histories:
        return None
    for epoch in sorted(set.intersection(*(set(history) for history in histories))):
        digests = set().union(*(history[epoch] for history in histories))
        if epoch > after and len(digests) == 1:
            return epoch, digests.pop()
    return None


def group_sizes(members: Iterable[Member]) -> dict[int, int]:
    """Epoch → members of its round, where anybody was heard to tell."""
    sizes = {epoch: played.group_size for member in members for epoch, played in dict(member.watcher.rounds).items()}
    return dict(sorted(sizes.items()))
