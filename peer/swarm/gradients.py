"""A stage's gradients of an epoch: each microbatch is counted once, when its trainer says so.

Until then the gradient of a microbatch waits by itself: its trainer may not have got the answer, and have the work done
by another peer. Blocking; for one thread, not that which computes: a trainer does not wait so long for a count.
"""

from collections import Counter, OrderedDict
from dataclasses import dataclass, field

import numpy as np

from protocols.identity import PeerId
from protocols.swarm.coverage import numbers
from protocols.vectors import Vector, slices

MOST_WAITING, FEWEST_WAITING = 8, 2
WAITING_BYTES = 64 * 1024 * 1024
"""So many wait, of large stages fewer, for each is as large as the stage; of who has most of them the oldest gives way,
and is done again when its trainer asks for it."""


@dataclass
class EpochGradients:
    total: Vector
    """Sum over the counted samples of the loss's gradient."""
    covered: int = 0


@dataclass
class Gradients:
    parameter_count: int
    batch_size: int
    microbatches: int
    """Of an epoch."""
    _epochs: dict[int, EpochGradients] = field(default_factory=dict)
    _waiting: OrderedDict[tuple[int, int, PeerId], Vector] = field(default_factory=OrderedDict)
    """(epoch, microbatch, trainer) → its mean gradient."""

    def open(self, epochs: range) -> None:
        """Takes gradients of these, and forgets those of others."""
        self._epochs = {
            epoch: self._epochs.get(epoch) or EpochGradients(np.zeros(self.parameter_count, np.float32))
            for epoch in epochs
        }
        for key in [key for key in self._waiting if key[0] not in epochs]:
            del self._waiting[key]

    @property
    def epochs(self) -> list[int]:
        return sorted(self._epochs)

    def covered(self, epoch: int) -> int:
        """The mask of what is counted."""
        return self._epochs[epoch].covered if epoch in self._epochs else 0

    def can_be_summed(self, gradient: Vector) -> bool:
        """Whether the sum over an epoch's samples is finite, if all microbatches have gradients as large as this."""
        largest = _LARGEST / (2 * self.batch_size * self.microbatches)
        return all(bool((np.abs(gradient[piece]) <= largest).all()) for piece in slices(len(gradient)))

    def offer(self, epoch: int, microbatch: int, trainer: PeerId, gradient: Vector) -> None:
        """Keeps the mean gradient of a microbatch until it is counted; it is this object's own from now on."""
        if epoch not in self._epochs or self._epochs[epoch].covered >> microbatch & 1:
            return
        self._waiting[epoch, microbatch, trainer] = gradient
        self._waiting.move_to_end((epoch, microbatch, trainer))
        if len(self._waiting) > max(FEWEST_WAITING, min(MOST_WAITING, WAITING_BYTES // gradient.nbytes)):
            del self._waiting[self._first_to_go()]

    def _first_to_go(self) -> tuple[int, int, PeerId]:
        """Who has none counted crowds out nobody else."""
        held = Counter(trainer for _, _, trainer in self._waiting)
        most = max(held.values())
        return next(key for key in self._waiting if held[key[2]] == most)

    def count(self, epoch: int, microbatches: int, trainer: PeerId) -> int:
        """Adds those that wait; the mask of those that are counted by now, whoever has asked for it."""
        gradients = self._epochs.get(epoch)
        if gradients is None:
            return 0
        for microbatch in numbers(microbatches & ~gradients.covered):
            waiting = self._waiting.pop((epoch, microbatch, trainer), None)
            if waiting is not None:
                for piece in slices(self.parameter_count):
                    gradients.total[piece] += waiting[piece] * np.float32(self.batch_size)
                gradients.covered |= 1 << microbatch
        return gradients.covered & microbatches

    def waiting(self, epoch: int, trainer: PeerId) -> int:
        """The mask of those that wait to be counted for that trainer."""
        return sum(1 << number for each, number, of in self._waiting if (each, of) == (epoch, trainer))

    def update(self, epoch: int) -> tuple[Vector, int, int]:
        """The mean gradient over the counted samples, their number, and the mask of their microbatches."""
        gradients = self._epochs[epoch]
        samples = gradients.covered.bit_count() * self.batch_size
        return gradients.total / np.float32(max(1, samples)), samples, gradients.covered

    def discard(self, epoch: int) -> None:
        """What is counted of this epoch is to be done again: another peer has counted some of it, too."""
        if epoch in self._epochs:
            self._epochs[epoch] = EpochGradients(np.zeros(self.parameter_count, np.float32))


_LARGEST = float(np.finfo(np.float32).max)
