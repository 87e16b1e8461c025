"""A simulation of a run without rounds: each member trains at its own pace and mixes its model with neighbours'."""

from collections.abc import Callable
from typing import Any

from dht.interfaces import Clock
from peer.gossip.participant import GossipParticipant
from peer.simulation.attackers import data_of, gossip_trainer
from peer.simulation.gossip_invariants import GossipInvariants
from peer.simulation.gossip_learner import PacedGossipLearner
from peer.simulation.report import GossipReport
from peer.simulation.simulation import Simulation
from peer.simulation.swarm import SimulatedPeer
from protocols.identity import PeerId
from protocols.manifest import Manifest

FIRST_PAUSE_SECONDS = 0.1


class GossipSimulation(Simulation):
    _invariants: GossipInvariants

    def __init__(self, *scene: Any) -> None:
        """`scene`: as `Simulation` takes it."""
        super().__init__(*scene)
        quorum = self._manifest.averaging.quorum
        self._invariants = GossipInvariants(self._world.check, quorum, self._plan, self._on_violation)

    def _participant_maker(self, misbehave: str | None) -> Callable[..., GossipParticipant]:
        def make(on_round: object, **given: Any) -> GossipParticipant:
            return GossipParticipant(**given)

        return make

    def _learner(self, manifest: Manifest, peer: PeerId, clock: Clock, _speed: float) -> PacedGossipLearner:
        planned = self._planned[peer]
        objective = data_of(planned.group.misbehave, self._training).objective(peer)
        trainer = gossip_trainer(planned.group.misbehave, manifest, objective, peer)
        return PacedGossipLearner(trainer, clock, self._pace(planned))

    def _pause(self) -> float:
        """Shorter at first: models are furthest apart for a moment, which the later distance is held against."""
        return min(super()._pause(), max(FIRST_PAUSE_SECONDS, self._swarm.now / 10))

    def _look_at(self, honest: list[SimulatedPeer]) -> None:
        super()._look_at(honest)
        if (distance := self._invariants.consensus(honest)) is not None:
            self._tell(None, "consensus", distance=distance)

    def _add_up(self, peer: SimulatedPeer) -> None:
        super()._add_up(peer)
        participant = peer.participant
        assert isinstance(participant, GossipParticipant)
        self._counts["samples"] += participant.samples_contributed
        counts = participant.counts
        self._counts["exchanges"] += counts.completed
        self._counts["failed exchanges"] += counts.failed
        self._counts["busy"] += counts.busy
        self._invariants.counted(peer, self._swarm.now, participant.samples_contributed)

    def _conclude(self) -> None:
        if self._finished:
            self._invariants.concluded(self._swarm.now)
        super()._conclude()

    def _summary(self) -> GossipReport:
        return GossipReport(
            consensus_distance=self._invariants.distance,
            largest_consensus_distance=self._invariants.largest,
            exchanges=self._counts["exchanges"],
            failed_exchanges=self._counts["failed exchanges"],
            busy=self._counts["busy"],
        )
