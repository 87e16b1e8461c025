"""A gossiping learner under virtual time: its work is done at once, and takes as long as the peer's machine would."""

from dht.interfaces import Clock
from peer.gossip.learner import GossipLearner
from peer.gossip.trainer import GossipTrainer
from peer.simulation.learner import Pace
from protocols.manifest import Gossip
from protocols.state import ModelState
from protocols.vectors import Vector


class PacedGossipLearner(GossipLearner):
    def __init__(self, trainer: GossipTrainer, clock: Clock, pace: Pace) -> None:
        self.layers = trainer.layers
        self.samples_per_second = pace.samples_per_second
        self.samples = 0
        """On which it has trained."""
        self._trainer, self._clock, self._pace = trainer, clock, pace

    @property
    def model(self) -> Vector:
        return self._trainer.model

    async def begin(self, state: ModelState) -> None:
        self._trainer.load(state)

    async def step(self, epoch: int, number: int, training: Gossip) -> int:
        await self._clock.sleep(self._pace.seconds(training.batch_size))
        self.loss = self._trainer.step(epoch, number, training)
        samples = training.batch_size if self.loss is not None else 0
        self.samples += samples
        return samples

    async def shift(self, shift: Vector) -> None:
        self._trainer.shift(shift)

    async def parameters(self) -> Vector:
        return self._trainer.parameters()

    async def state(self, epoch: int) -> ModelState:
        return self._trainer.state(epoch)

    async def evaluate(self) -> dict[str, float]:
        return self._trainer.evaluate()
