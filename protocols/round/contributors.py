"""Whose counts make up the epoch of a pipeline's stage, for whoever leads its round.

Each microbatch counts once, so of two who have counted the same one does its own again; and an epoch is whole as soon
as nobody's word but that of those who keep it is needed. So no word holds up a stage: who claims what others have
counted, again and again, or is not ready with what it said to have, is gone on without in that epoch.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

from protocols.identity import PeerId
from protocols.round.electorate import Electorate
from protocols.round.order import order
from protocols.round.setting import Setting
from protocols.swarm.coverage import everything

MOST_QUARRELS = 5
"""So many a member may have in an epoch. Honest ones count nothing of which they know that another has; two that count
the same at once have one."""


class Contributors:
    def __init__(self, setting: Setting, electorate: Electorate) -> None:
        suspended = setting.suspended if electorate.can_spare(setting.suspended) else frozenset()
        self.out = set(suspended)
        """What they have counted does not count in this epoch."""
        self.at_fault: set[PeerId] = set()
        """Those of them who have broken their word: two who have counted the same have not."""
        self.giving_way: set[PeerId] = set()
        """Who has to do its own again: another has counted some of it, too."""
        self._setting, self._all = setting, everything(setting.microbatches)
        self._kept: dict[PeerId, int] = {}
        """What counts, so far."""
        self._quarrels: Counter[PeerId] = Counter()
        self._awaited_since: dict[PeerId, float] = {}

    def choose(self, masks: Mapping[PeerId, int]) -> dict[PeerId, int]:
        """Those of the masks that count; no two of them have anything in common.

        What counts goes on to count for as long as it is claimed, so nobody displaces anybody: who comes to claim what
        counts for another gives way, with all that it has, for it has the sum alone.
        """
        gone = len(self.out)
        self._go_without(peer for peer, mask in masks.items() if mask > self._all)  # an epoch has no such microbatches
        self.giving_way &= masks.keys()
        kept = {peer: mask & masks.get(peer, 0) for peer, mask in self._kept.items() if peer not in self.out}
        for peer in [*kept, *sorted(masks.keys() - kept.keys() - self.out)]:
            mask = masks.get(peer, 0)
            rivals = [rival for rival, theirs in kept.items() if rival != peer and theirs & mask]
            if not rivals:
                self.giving_way.discard(peer)
                kept[peer] = mask
                continue
            kept.pop(peer, None)
            if peer not in self.giving_way:
                self.giving_way.add(peer)
                self._quarrel([peer, *rivals])
        self._kept = {peer: mask for peer, mask in kept.items() if peer in masks}
        return dict(self._kept) if len(self.out) == gone else self.choose(masks)

    def break_word(self, peer: PeerId) -> None:
        """It is not ready with what it said to have."""
        before = set(self.out)
        self._quarrel([peer])
        self.at_fault |= self.out - before

    def _go_without(self, peers: Iterable[PeerId]) -> None:
        gone = set(peers) - self.out
        self.out |= gone
        self.at_fault |= gone

    def _quarrel(self, peers: Iterable[PeerId]) -> None:
        """Who has too many goes, but not we ourselves: who leads is in its group."""
        others = set(peers) - {self._setting.me}
        self._quarrels.update(others)
        most = max((self._quarrels[peer] for peer in others), default=0)
        if most > MOST_QUARRELS:
            worst = {peer for peer in others if self._quarrels[peer] == most}
            self.out.add(order(self._setting.draw, self._setting.epoch, worst)[-1])

    def wait_for(self, absent: Iterable[PeerId], since: float, too_long_since: float) -> None:
        """These are not ready with what they have counted, since then at least. Who is not for too long goes."""
        self._awaited_since = {peer: self._awaited_since.get(peer, since) for peer in absent}
        self._go_without(peer for peer, since in self._awaited_since.items() if since <= too_long_since)
