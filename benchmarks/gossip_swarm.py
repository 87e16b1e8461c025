"""Gossiping members in virtual time, for benchmarks: each trains the digits at a pace of its own.

Everything is the daemon's but the network, which is simulated, and the time that training takes.
"""

import logging
from collections.abc import Callable, Coroutine
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import structlog

from dht.interfaces import Clock
from dht.simulated import SimulatedNetwork, run_simulation
from dht.simulated_link import Link
from peer.compute_threads import use_threads
from peer.data.dataset import Dataset
from peer.data.registry import open_dataset
from peer.gossip.model_objective import ModelObjective
from peer.gossip.participant import GossipParticipant
from peer.gossip.trainer import GossipTrainer
from peer.models.flat import FlatModel, initial_state
from peer.simulation.gossip_learner import PacedGossipLearner
from peer.simulation.learner import Pace
from peer.simulation.swarm import MakeLearner, SimulatedSwarm, simulated_swarm
from protocols.identity import PeerId
from protocols.manifest import AdamW, Averaging, Data, Evaluation, Gossip, Manifest, Model
from protocols.state import ModelState
from protocols.vectors import Vector

Result = TypeVar("Result")


def digits(epochs: int, averaging: Averaging, learning_rate: float = 0.003, **training: Any) -> Manifest:
    """A run of the digits; `training`: what else of `Gossip`."""
    optimizer = AdamW(learning_rate=learning_rate, warmup_epochs=10)
    return Manifest(
        name="benchmark",
        model=Model(architecture="mlp", options={"width": 64, "layers": 2}),
        data=Data(dataset="digits"),
        training=Gossip(**{"batch_size": 16, "steps": 4, "optimizer": optimizer} | training),
        epochs=epochs,
        averaging=averaging,
        evaluation=Evaluation(every_epochs=10**6, samples=1024),
    )


def learns_digits(manifest: Manifest, peer: PeerId, clock: Clock, samples_per_second: float) -> PacedGossipLearner:
    objective = ModelObjective(manifest, FlatModel.of(manifest.model), _digits(), peer)
    return PacedGossipLearner(GossipTrainer(manifest, objective), clock, Pace(samples_per_second))


def accuracy(manifest: Manifest, parameters: Vector) -> float:
    """Of a model, on the held-out digits."""
    model = FlatModel.of(manifest.model)
    np.copyto(model.parameters.detach().numpy(), parameters)
    return _digits().evaluate(model, manifest.evaluation.samples)["accuracy"]


async def start_gossiping(
    swarm: SimulatedSwarm, number: int, make: Callable[..., GossipParticipant] = GossipParticipant, **options: Any
) -> GossipParticipant:
    def without_rounds(on_round: object, **given: Any) -> GossipParticipant:
        return make(**given)

    peer = await swarm.start(number, make=without_rounds, **options)
    assert isinstance(peer.participant, GossipParticipant)
    return peer.participant


def simulate(
    scenario: Callable[[SimulatedSwarm], Coroutine[Any, Any, Result]],
    manifest: Manifest,
    learns: MakeLearner,
    *,
    initial: Callable[[Manifest], ModelState] = initial_state,
    seed: int = 0,
    link: Link | None = None,
) -> Result:
    """What comes of the scenario in a new swarm of the manifest's run."""
    use_threads(1)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))

    async def main(network: SimulatedNetwork) -> Result:
        async with simulated_swarm(network, manifest, initial(manifest), learns) as swarm:
            return await scenario(swarm)

    return run_simulation(main, seed, link)


@lru_cache(maxsize=1)
def _digits() -> Dataset:
    return open_dataset(Data(dataset="digits"))
