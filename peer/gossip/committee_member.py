"""What a member does where committees are sampled: it trains another's model, and holds what comes of a round.

The vectors that its optimizer keeps stay with it from one committee in which it trains to the next.
"""

from peer.directives import Directives
from peer.gossip.own_model import OwnModel
from peer.membership import Membership
from protocols.identity import PeerId
from protocols.manifest import Gossip, Manifest
from protocols.state import ModelState
from protocols.vectors import Vector


class CommitteeMember:
    """Implements `peer.gossip.committees.CommitteeHost`."""

    def __init__(
        self, me: PeerId, manifest: Manifest, own: OwnModel, membership: Membership, directives: Directives
    ) -> None:
        self._me, self._manifest, self._own = me, manifest, own
        self._membership, self._directives = membership, directives
        self._slots = own.state.slots

    async def train(self, number: int, model: Vector) -> tuple[Vector, int]:
        training = self._directives.log.training(number)
        assert isinstance(training, Gossip)
        await self._own.trainer.begin(self._state(number, model))
        samples = await self._own.train(number, training)
        state = await self._own.trainer.state(number)
        self._slots = state.slots
        self._own.count(samples)
        return state.parameters, samples

    async def hold(self, number: int, model: Vector) -> None:
        before, self._own.epoch = self._own.epoch, number
        state = self._state(number, model)
        await self._own.show(state)
        self._membership.announce()
        if self._manifest.evaluation.is_due(before, number):
            await self._own.trainer.begin(state)
            await self._own.evaluate()

    def held(self) -> tuple[int, Vector]:
        return self._own.state.epoch, self._own.state.parameters

    def holders(self) -> dict[PeerId, int]:
        held = {
            member.peer: member.epoch
            for member in self._membership.roster
            if member.entry.role == "trainer" and member.entry.state_digest is not None
        }
        return held | {self._me: self._own.state.epoch}

    def _state(self, number: int, model: Vector) -> ModelState:
        return ModelState(self._manifest.run_id, number, model, self._slots)
