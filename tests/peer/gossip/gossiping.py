"""Whole gossiping members over a simulated network, under virtual time; training is a noisy quadratic."""

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import numpy as np

from dht.interfaces import Clock
from dht.simulated_link import Link
from peer.gossip.learner import GossipLearner
from peer.gossip.participant import GossipParticipant
from protocols.encoding import digest, encode
from protocols.gossip.mixing import apply_shift
from protocols.identity import PeerId
from protocols.manifest import Averaging, Data, Gossip, Manifest, Model, Sgd
from protocols.optimizers import learning_rate
from protocols.state import ModelState
from protocols.vectors import Vector
from tests.peer.simulated_swarm import SimulatedPeer, SimulatedSwarm, simulate

BATCH = 10
SPEED = 200.0
"""Samples per second: a step takes 50 ms."""
PARAMETERS = 2048
Result = TypeVar("Result")


def gossip(epochs: int = 100, averaging: Averaging | None = None, rate: float = 0.1, **training: Any) -> Manifest:
    spec = Sgd(learning_rate=rate, final_learning_rate=0.0)
    return Manifest(
        name="simulated",
        model=Model(architecture="quadratic"),
        data=Data(dataset="noise"),
        training=Gossip(**{"batch_size": BATCH, "steps": 2, "optimizer": spec} | training),
        epochs=epochs,
        averaging=averaging or Averaging(),
    )


class QuadraticGossipLearner(GossipLearner):
    """Descends ½·|w|² by gradients with noise that depends on (peer, epoch, step)."""

    def __init__(self, manifest: Manifest, peer: PeerId, clock: Clock, speed: float) -> None:
        self.samples_per_second = speed
        self._manifest, self._peer, self._clock = manifest, peer, clock
        self._state: ModelState
        self.weights: Vector = np.zeros(0, np.float32)
        self.steps = 0
        self.moments: list[float] = []
        """When each step ended."""

    async def begin(self, state: ModelState) -> None:
        self._state, self.weights = state, state.parameters.copy()
        self.layers = (slice(0, len(self.weights) // 2), slice(len(self.weights) // 2, len(self.weights)))

    async def step(self, epoch: int, number: int, training: Gossip) -> int:
        await self._clock.sleep(training.batch_size / self.samples_per_second)
        rate = learning_rate(training.optimizer, epoch, self._manifest.epochs)
        self.weights -= np.float32(rate) * (self.weights + self._noise(epoch, number))
        self.loss = float(np.mean(np.square(self.weights))) / 2
        self.steps += 1
        self.moments.append(self._clock.monotonic())
        return training.batch_size

    def _noise(self, epoch: int, number: int) -> Vector:
        seed = int.from_bytes(digest(encode([self._peer, epoch, number]))[:8], "big")
        return np.random.default_rng(seed).standard_normal(len(self.weights), np.float32)

    async def shift(self, shift: Vector) -> None:
        apply_shift(self.weights, shift)

    async def parameters(self) -> Vector:
        if not np.isfinite(self.weights).all():
            raise ArithmeticError("not finite")
        return self.weights.copy()

    async def state(self, epoch: int) -> ModelState:
        return ModelState(self._state.run, epoch, await self.parameters(), self._state.slots)

    async def evaluate(self) -> dict[str, float]:
        return {"distance": float(np.sqrt(np.mean(np.square(self.weights, dtype=np.float64))))}


def weights_of(peers: Sequence[SimulatedPeer]) -> np.ndarray:
    """n × d, float64."""
    return np.array([peer.participant.learner.weights for peer in peers], np.float64)


def consensus_distance(peers: Sequence[SimulatedPeer]) -> float:
    """Root mean square distance of the peers' models from their mean."""
    weights = weights_of(peers)
    return float(np.sqrt(np.mean(np.sum(np.square(weights - weights.mean(axis=0)), axis=1))))


async def start(
    swarm: SimulatedSwarm, number: int, *, make: Callable[..., GossipParticipant] = GossipParticipant, **options: Any
) -> SimulatedPeer:
    def without_rounds(on_round: object, **given: Any) -> GossipParticipant:
        return make(**given)

    return await swarm.start(
        number, make=without_rounds, **{"learns": QuadraticGossipLearner, "speed": SPEED} | options
    )


async def start_all(swarm: SimulatedSwarm, count: int, **options: Any) -> list[SimulatedPeer]:
    return [await start(swarm, number, **options) for number in range(count)]


def simulate_gossip(
    scenario: Callable[[SimulatedSwarm], Coroutine[Any, Any, Result]],
    manifest: Manifest,
    seed: int = 0,
    link: Link | None = None,
    parameters: int = PARAMETERS,
) -> Result:
    return simulate(scenario, manifest, seed, link, parameters)
