"""While an epoch is gathered: how far each member has come, and when that is enough to close it."""

from collections.abc import Mapping, Set
from dataclasses import dataclass

from protocols.identity import PeerId
from protocols.message import MAX_COUNT
from protocols.round.deadlines import straggler_deadline
from protocols.round.messages import Progress
from protocols.round.setting import Setting


@dataclass(slots=True)
class PeerView:
    """What we know of a member in this epoch."""

    client_mode: bool = False
    samples: int = 0
    complete: bool = False
    """Has nothing more to do in this epoch; one that does not train has not from the start."""
    complete_after: float = 0.0
    """Seconds from the round's start until its trainer was complete."""

    def come_to(self, samples: int, complete: bool, elapsed: float) -> bool:
        """Whether that makes it complete."""
        newly_complete = complete and not self.complete
        self.samples = max(self.samples, samples)
        if newly_complete:
            self.complete, self.complete_after = True, elapsed
        return newly_complete


class Tally:
    def __init__(self, setting: Setting, expected: Mapping[PeerId, bool]) -> None:
        """`expected`: the members, and whether they are in client mode."""
        self.own = PeerView(setting.client_mode, complete=not setting.trains)
        self.peers = {peer: PeerView(mode) for peer, mode in expected.items() if peer != setting.me}
        """The others."""
        self._setting = setting

    def hear(self, sender: PeerId, body: Progress, elapsed: float) -> None:
        """`elapsed`, here and below: seconds since the round's start."""
        view = self.peers.setdefault(sender, PeerView())
        view.client_mode = body.client_mode
        view.come_to(body.samples, body.complete, elapsed)

    def samples(self, suspected: Set[PeerId]) -> int:
        """Of all who are not `suspected`."""
        return min(sum(view.samples for view in self._views(suspected)), MAX_COUNT)

    def is_enough(self, suspected: Set[PeerId], elapsed: float) -> bool:
        """Whether the epoch can be closed, for whoever leads it."""
        if self._setting.target_samples is not None:
            return self.samples(suspected) >= self._setting.target_samples
        return self._enough_complete(suspected, elapsed)

    def seems_enough(self, suspected: Set[PeerId]) -> bool:
        """Whether it has all that it waits for, as far as a follower can know."""
        if self._setting.target_samples is not None:
            return self.samples(suspected) >= self._setting.target_samples
        return self._setting.trains and self.own.complete

    def _views(self, suspected: Set[PeerId]) -> list[PeerView]:
        return [self.own, *(view for peer, view in self.peers.items() if peer not in suspected)]

    def _enough_complete(self, suspected: Set[PeerId], elapsed: float) -> bool:
        """Whether all trainers are complete, or at least half of them and the others have had their time."""
        trainers = [view for view in self._views(suspected) if view.samples or not view.complete]
        arrivals = [view.complete_after for view in trainers if view.complete]
        if not arrivals or 2 * len(arrivals) < len(trainers):
            return False
        if len(arrivals) == len(trainers):
            return True
        deadline = straggler_deadline(arrivals, len(trainers), self._setting.timing)
        if 2 * len(arrivals) == len(trainers):  # no majority tells what is slow: twice the time of those who came
            deadline = max(arrivals) + max(deadline, *arrivals)
        return elapsed >= deadline
