"""A simulation of a run that holds rounds."""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

from dht.interfaces import Clock
from peer.learner import Learner
from peer.participant import Participant
from peer.rounds.session import RoundOutcome
from peer.simulation.attackers import data_of, learner_of, participant_maker, start_identities_beside
from peer.simulation.disk import Disk
from peer.simulation.learner import PacedLearner
from peer.simulation.plan import PlannedPeer
from peer.simulation.round_invariants import RoundInvariants
from peer.simulation.simulation import Simulation
from peer.simulation.swarm import SimulatedPeer
from protocols.identity import PeerId
from protocols.manifest import Manifest
from protocols.round.cells import epoch_of

MOST_IDENTITIES = 100
"""Beside that of one peer."""


class RoundSimulation(Simulation):
    _invariants: RoundInvariants

    def __init__(self, *scene: Any) -> None:
        """`scene`: as `Simulation` takes it."""
        super().__init__(*scene)
        quorum = self._manifest.averaging.quorum
        self._invariants = RoundInvariants(self._world.check, quorum, self._plan, self._on_violation)
        self._trained: dict[int, dict[int, int]] = defaultdict(dict)
        """By number and epoch: on how many samples honest members have trained, in one of their lives."""

    def _participant_maker(self, misbehave: str | None) -> Callable[..., Participant]:
        return participant_maker(misbehave)

    async def _start(self, planned: PlannedPeer, disk: Disk) -> SimulatedPeer:
        peer = await super()._start(planned, disk)
        if planned.group.misbehave is not None:
            first = len(self._plan.peers) + planned.number * MOST_IDENTITIES
            await start_identities_beside(self._swarm, peer.participant, range(first, first + MOST_IDENTITIES))
        return peer

    def _learner(self, manifest: Manifest, peer: PeerId, clock: Clock, _speed: float) -> Learner:
        planned = self._planned[peer]
        trainer = data_of(planned.group.misbehave, self._training).trainer(peer)
        examine = self._training.trainer if manifest.checks_senders else None
        trained, batch_size = self._trained[planned.number], manifest.training.batch_size
        learner = PacedLearner(trainer, batch_size, clock, self._pace(planned), examine, trained)
        return learner_of(planned.group.misbehave, learner, peer)

    def finished_round(self, peer: SimulatedPeer, outcome: RoundOutcome) -> None:
        epoch = epoch_of(outcome.done.epoch, self._manifest.averaging.cells)
        self._tell(
            peer,
            "round",
            epoch=epoch,
            members=len(outcome.done.body.members),
            samples=outcome.weight,
            seconds=round(outcome.duration_seconds, 6),
            sent=outcome.bytes_sent,
            received=outcome.bytes_received,
        )
        if self._is_honest(peer):
            trained = self._trained[peer.number].get(epoch, 0)
            self._counts["samples"] += outcome.weight
            self._invariants.counted(peer, self._swarm.now, outcome, trained)
