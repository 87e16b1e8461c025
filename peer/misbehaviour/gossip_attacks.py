"""Attacks of a gossiping member on the models of those it meets: it trains, and shows something else."""

from collections import deque

import numpy as np

from peer.gossip.learner import GossipLearner
from peer.misbehaviour.model_attacks import REMEMBERED
from protocols.attacks import Scene, make_attack
from protocols.encoding import digest
from protocols.identity import PeerId
from protocols.manifest import Gossip
from protocols.state import ModelState
from protocols.vectors import Vector


class MisbehavingGossipLearner(GossipLearner):
    """Trains and mixes as `honest` does. Others get its model as `attack` makes an update: turned round, drifting, …

    An attack that has to know the others' takes its own models of the last exchanges for theirs: they are near.
    """

    def __init__(self, honest: GossipLearner, attack: str, peer: PeerId) -> None:
        self._honest = honest
        self._forge = make_attack(attack)
        self._shown: deque[Vector] = deque(maxlen=REMEMBERED)
        self._random = np.random.default_rng(int.from_bytes(digest(peer.encode())[:8], "big"))
        self._take_over()

    def _take_over(self) -> None:
        honest = self._honest
        self.loss, self.samples_per_second, self.layers = honest.loss, honest.samples_per_second, honest.layers

    async def begin(self, state: ModelState) -> None:
        await self._honest.begin(state)
        self._take_over()

    async def step(self, epoch: int, number: int, training: Gossip) -> int:
        samples = await self._honest.step(epoch, number, training)
        self._take_over()
        return samples

    async def shift(self, shift: Vector) -> None:
        await self._honest.shift(shift)

    async def parameters(self) -> Vector:
        own = await self._honest.parameters()
        self._shown.append(own)
        return self._forge(Scene(own, np.stack(self._shown), 1, self._random))

    async def state(self, epoch: int) -> ModelState:
        return await self._honest.state(epoch)

    async def evaluate(self) -> dict[str, float]:
        return await self._honest.evaluate()
