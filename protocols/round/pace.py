"""Who sends so much more slowly than the others that a part does not wait for it.

No chunk of a slow sender is late by much, but each is late, and the fast ones wait with theirs: they may be ahead by so
many chunks, and then stand still. So what counts is how long most of the senders stand still for one. Who only has the
smaller share of a line, because others are faster to take theirs, gets the whole of it as soon as they do; so may who
gives others the larger share of its own: who is not far slower in all is waited for longer.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import median_high, median_low

from protocols.round.deadlines import Timing


@dataclass(slots=True)
class Sender:
    """What one of them has done so far, in seconds."""

    busy: float = 0.0
    """In which it was read, and did not keep the others waiting."""
    awaited: float = 0.0
    """In which most of the others stood still, and it was read."""
    chunks: int = 0
    """That it has delivered."""
    is_read: bool = False


@dataclass(slots=True)
class Paces:
    timing: Timing
    least_seconds: float = 0.0
    """What a part of this size takes at least: while it has only begun, the middle sender tells nothing yet."""
    senders: dict[int, Sender] = field(default_factory=dict)
    """By member number; the owner, who has its own chunks at once, is none of them."""
    _now: float = 0.0

    def read(self, number: int, now: float) -> None:
        """From now on this sender is read, and may be waited for."""
        self._advance(now)
        self.senders.setdefault(number, Sender()).is_read = True

    def rest(self, number: int, now: float) -> None:
        """From now on it is not: it is ahead, or has nothing more to send."""
        self._advance(now)
        if sender := self.senders.get(number):
            sender.is_read = False

    def take(self, number: int) -> None:
        """This sender has delivered a chunk."""
        if sender := self.senders.get(number):
            sender.chunks += 1

    def forget(self, number: int) -> None:
        """It is not counted on any more, so that it neither waits nor is waited for."""
        self.senders.pop(number, None)

    def slack(self, numbers: Iterable[int], now: float) -> dict[int, float]:
        """How many seconds each of these may still keep the others waiting; none, and it is too slow.

        The measure is what the middle sender has taken for its chunks, of two the slower: who sends faster than all
        others cannot make anybody look slow.
        """
        self._advance(now)
        if not self.senders:
            return {}
        timing, senders = self.timing, self.senders.values()
        usual = max(self.least_seconds, median_high(sender.busy for sender in senders))
        chunks = median_low(sender.chunks for sender in senders)

        def allowed(sender: Sender) -> float:
            is_far_slower = (sender.busy + sender.awaited) * chunks >= timing.far_slower * usual * sender.chunks
            return timing.slack + ((timing.slower if is_far_slower else timing.uneven) - 1) * usual

        known = {number: self.senders[number] for number in numbers if number in self.senders}
        return {number: allowed(sender) - sender.awaited for number, sender in known.items()}

    def _advance(self, now: float) -> None:
        elapsed, self._now = now - self._now, now
        read = [sender for sender in self.senders.values() if sender.is_read]
        for sender in read:
            if 2 * len(read) < len(self.senders):
                sender.awaited += elapsed
            else:
                sender.busy += elapsed
