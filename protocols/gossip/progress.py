"""How far a swarm is whose members go at their own pace, and how much each of them adds.

An epoch is what a peer trains between two exchanges. Whoever falls behind most of the others takes on the epoch that
they have come to: it has added what it could, and the run ends for all at about the same time. So learning rates, which
follow the epoch, are the same everywhere; and as more than half of the others have to say so, a few who claim any epoch
move nobody.
"""

from collections import Counter, deque
from collections.abc import Iterable

from protocols.identity import PeerId
from protocols.reached import reached_by

WINDOW_EPOCHS = 16
"""Over which a peer's samples are counted."""


def epoch_of_most(others: Iterable[int]) -> int:
    """The newest epoch that more than half of the others have come to; 0 when there are none."""
    said = list(others)
    return reached_by(len(said) // 2 + 1, said) if said else 0


class Epochs:
    """How far each of the others is, and the newest epoch that most have come to: what costs nothing for those of whom
    nothing is new."""

    def __init__(self) -> None:
        self._of: dict[PeerId, int] = {}
        self._counts: Counter[int] = Counter()

    def __len__(self) -> int:
        return len(self._of)

    def get(self, peer: PeerId) -> int | None:
        return self._of.get(peer)

    def put(self, peer: PeerId, epoch: int) -> None:
        self.drop(peer)
        self._of[peer] = epoch
        self._counts[epoch] += 1

    def drop(self, peer: PeerId) -> None:
        epoch = self._of.pop(peer, None)
        if epoch is not None:
            self._counts[epoch] -= 1
            if not self._counts[epoch]:
                del self._counts[epoch]

    def of_most(self) -> int:
        """As `epoch_of_most` of all."""
        come = 0
        for epoch in sorted(self._counts, reverse=True):
            come += self._counts[epoch]
            if 2 * come > len(self._of):
                return epoch
        return 0


class SampleRate:
    """The samples that a peer adds in an epoch of the swarm, on average over the last WINDOW_EPOCHS: its weight.

    A peer that skips epochs, as the others are faster, has fewer; a newcomer has none until it has trained.
    """

    def __init__(self) -> None:
        self._added: deque[tuple[int, int]] = deque()
        """Epoch, samples."""
        self._first: int | None = None

    def add(self, epoch: int, samples: int) -> None:
        """So many were trained in what became `epoch`."""
        if self._first is None:
            self._first = epoch - 1
        self._added.append((epoch, samples))
        while self._added[0][0] <= epoch - WINDOW_EPOCHS:
            self._added.popleft()

    def at(self, epoch: int) -> int:
        """Samples an epoch, rounded up."""
        if self._first is None:
            return 0
        window = [samples for added, samples in self._added if added > epoch - WINDOW_EPOCHS]
        epochs = min(WINDOW_EPOCHS, max(1, epoch - self._first))
        return -(-sum(window) // epochs)
