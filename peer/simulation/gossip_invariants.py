"""What must hold in runs without rounds, beside what must in all.

- Models come together: at the end of training the consensus distance is a fraction of the largest that it was.
- No sample is counted that was not trained on.

The consensus distance is the root mean square distance of the models from their mean.
"""

from collections.abc import Collection
from typing import Any

import numpy as np

from peer.simulation.gossip_learner import PacedGossipLearner
from peer.simulation.invariants import Invariants
from peer.simulation.swarm import SimulatedPeer
from protocols.vectors import Vector


class GossipInvariants(Invariants):
    def __init__(self, *looked_at: Any) -> None:
        """`looked_at`: as `Invariants` takes it."""
        super().__init__(*looked_at)
        self.distance = 0.0
        """The last consensus distance while everybody trained."""
        self.largest = 0.0
        self._furthest: SimulatedPeer | None = None
        """Whose model was furthest from the mean then."""

    def counted(self, peer: SimulatedPeer, now: float, samples: int) -> None:
        """So many samples `peer` says to have contributed in this life."""
        learner = peer.participant.learner
        if isinstance(learner, PacedGossipLearner) and samples > learner.samples:
            self._violated(peer, now, f"{samples} samples were counted for it, and it has trained on {learner.samples}")

    def consensus(self, peers: Collection[SimulatedPeer]) -> float | None:
        """The consensus distance of these; None once somebody is at the run's end, or where fewer than two train."""
        training = [peer for peer in peers if peer.participant.joined]
        if len(training) < 2 or any(peer.participant.finished for peer in training):
            return None
        models = np.array([model_of(peer) for peer in training], np.float64)
        from_mean = np.sum(np.square(models - models.mean(axis=0)), axis=1)
        self.distance = float(np.sqrt(from_mean.mean()))
        self.largest = max(self.largest, self.distance)
        self._furthest = training[int(from_mean.argmax())]
        return self.distance

    def concluded(self, now: float) -> None:
        """The run has come to its end."""
        most = self._check.consensus * self.largest
        if self._furthest is not None and self.distance > most:
            what = f"is far from the others' models: {self.distance:.3g} on average, where {most:.3g} is the most"
            self._violated(self._furthest, now, what)


def model_of(peer: SimulatedPeer) -> Vector:
    """As it is, not as it was last shown."""
    learner = peer.participant.learner
    assert isinstance(learner, PacedGossipLearner)
    return learner.model
