"""The model of one member of a run without groups: trained here, shifted by exchanges, and shown to others.

Exchanges change it all the time, so what others can have of it is a copy, its `state`, made anew now and then.
"""

import asyncio
from collections.abc import Sequence

from dht.interfaces import Transport
from peer.contents import ContentStore
from peer.gossip.learner import GossipLearner
from peer.gossip.models import Busy
from peer.learner import IdleLearner
from peer.signal import Signal
from peer.sync import Heads
from protocols.gossip.momentum import Companion
from protocols.gossip.spectrum import Connectivity
from protocols.manifest import Gossip
from protocols.state import ModelState
from protocols.vectors import Vector

SHOW_SECONDS = 1.0
"""How often a new state of ours is shown to others and saved."""
SHORTEST_RING = 4
"""Peers; in a ring of fewer everybody is linked with all."""


class OwnModel:
    def __init__(
        self,
        transport: Transport,
        training: Gossip,
        state: ModelState,
        learner: GossipLearner | IdleLearner,
        heads: Heads,
        changed: Signal,
    ) -> None:
        """`state`, `learner` as in `GossipParticipant`; `heads` says what we show, `changed` that it is another."""
        self.learner, self.state = learner, state
        self.epoch = state.epoch
        """Of our model as it is; `state` is what it was at most SHOW_SECONDS ago."""
        self.contents = ContentStore(transport.in_thread)
        self.evaluation: dict[str, float] = {}
        self.evaluated_epoch: int | None = None
        self.epochs_played = 0
        self.samples_contributed = 0
        self.is_there = False
        """Whether it is trained, and others may exchange with it."""
        self.diverged = False
        self._transport, self._heads, self._changed = transport, heads, changed
        self._corrects_variance = training.corrects_variance
        self._companion = Companion(state.parameter_count) if training.accelerated else None
        self._pushing = asyncio.Lock()
        self._shown_at = float("-inf")

    @property
    def trainer(self) -> GossipLearner:
        assert isinstance(self.learner, GossipLearner), "only of a member that trains"
        return self.learner

    @property
    def layers(self) -> Sequence[slice]:
        """Where averages keep their variance."""
        return self.trainer.layers if self._corrects_variance else ()

    async def begin(self, state: ModelState) -> None:
        """Training goes on from `state`."""
        await self.trainer.begin(state)
        if self._companion is not None:
            self._companion.forget()
        self.epoch, self.diverged, self.is_there = state.epoch, False, True
        await self.show(state)

    async def become(self, state: ModelState) -> None:
        """One that is not trained on."""
        await self.trainer.begin(state)
        self.epoch = state.epoch
        await self.show(state)

    async def train(self, epoch: int, training: Gossip) -> int:
        """All steps of an epoch; how many samples they have added."""
        return sum([await self.trainer.step(epoch, number, training) for number in range(training.steps)])

    def count(self, samples: int) -> None:
        """So many were added in one more epoch."""
        self.epochs_played += 1
        self.samples_contributed += samples

    async def parameters(self) -> Vector:
        """A copy. Raises Busy while there is none to give."""
        if not self.is_there:
            raise Busy("no model to give")
        try:
            return await self.trainer.parameters()
        except ArithmeticError as error:
            self.diverged = True
            raise Busy("our model is not finite") from error

    async def shift(self, shift: Vector, count: int) -> None:
        """`count`: of the peers that mix, this one too."""
        if self._companion is not None and count >= SHORTEST_RING:
            async with self._pushing:
                ring = Connectivity.of_ring(count)
                shift = await self._transport.in_thread(self._companion.push, shift, ring)
        await self.trainer.shift(shift)

    async def evaluate(self) -> None:
        if self.evaluated_epoch != self.epoch:
            epoch = self.epoch
            self.evaluation, self.evaluated_epoch = await self.trainer.evaluate(), epoch
            self._changed.notify()

    def is_shown_long_ago(self, now: float) -> bool:
        return now >= self._shown_at + SHOW_SECONDS

    async def show_as_it_is(self) -> None:
        """Unless it has diverged."""
        try:
            state = await self.trainer.state(self.epoch)
        except ArithmeticError:
            self.diverged = True
        else:
            await self.show(state)

    async def show(self, state: ModelState) -> None:
        await self._transport.in_thread(lambda: state.digest)
        self.state, self._shown_at = state, self._transport.clock.monotonic()
        self._heads.restart()
        self._heads.note(state)
        self.contents.put(state.index, state.buffers())
        self._changed.notify()
