"""Small swarms for tests (`peer.simulation.swarm`), whose members descend a noisy quadratic from a distance of 10."""

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest

from dht.interfaces import Clock
from dht.simulated import SimulatedNetwork, run_simulation
from dht.simulated_link import Link
from peer.simulation.learner import Pace, PacedLearner
from peer.simulation.problems import ProblemTrainer, Quadratic
from peer.simulation.swarm import CountedRejections, SimulatedPeer, SimulatedSwarm, identity, simulated_swarm
from protocols.identity import PeerId
from protocols.manifest import Averaging, Data, DataParallel, LocalSgd, Manifest, Model, Sgd
from protocols.rejection import Reason
from protocols.state import ModelState

PARAMETERS = 2048
BATCH = 10
INNER_STEPS = 10
Result = TypeVar("Result")
ManifestOf = Callable[..., Manifest]
MEGABIT = 125_000.0
HARMLESS = {Reason.BUSY, Reason.ABSENT}
"""Weighs nothing."""
RACES = {Reason.UNEXPECTED, Reason.STALE, Reason.REPLAYED}
"""What honest peers hear from each other when messages cross; a peer is suspended at 256 in a minute."""

__all__ = [
    "HARMLESS",
    "MEGABIT",
    "MODES",
    "CountedRejections",
    "ManifestOf",
    "QuadraticLearner",
    "SimulatedPeer",
    "SimulatedSwarm",
    "check_nobody_was_charged",
    "data_parallel",
    "distance",
    "identity",
    "initial_state",
    "local_sgd",
    "samples",
    "simulate",
]


def data_parallel(epochs: int = 10, codec: str = "none", target_batch: int = 400) -> Manifest:
    training = DataParallel(batch_size=BATCH, target_batch=target_batch, optimizer=Sgd(learning_rate=0.1, momentum=0.9))
    return _manifest(training, epochs, codec)


def local_sgd(epochs: int = 10, codec: str = "none") -> Manifest:
    training = LocalSgd(batch_size=BATCH, inner_steps=INNER_STEPS, inner=Sgd(learning_rate=0.05))
    return _manifest(training, epochs, codec)


MODES = pytest.mark.parametrize("manifest_of", [data_parallel, local_sgd])


def _manifest(training: DataParallel | LocalSgd, epochs: int, codec: str) -> Manifest:
    return Manifest(
        name="simulated",
        model=Model(architecture="quadratic"),
        data=Data(dataset="noise"),
        training=training,
        epochs=epochs,
        averaging=Averaging(codec=codec),
    )


def initial_state(manifest: Manifest, parameters: int = PARAMETERS) -> ModelState:
    return Quadratic(parameters).initial_state(manifest)


def distance(state: ModelState) -> float:
    """Root mean square of what is left to learn; 10 at the start."""
    return Quadratic(state.parameter_count).distance(state.parameters)


class QuadraticLearner(PacedLearner):
    """Of samples of the quadratic, `speed` a second."""

    def __init__(self, manifest: Manifest, peer: PeerId, clock: Clock, speed: float) -> None:
        def trainer(of: PeerId) -> ProblemTrainer:
            return ProblemTrainer(manifest, Quadratic(PARAMETERS), of)

        super().__init__(trainer(peer), BATCH, clock, Pace(speed), trainer)


def simulate(
    scenario: Callable[[SimulatedSwarm], Coroutine[Any, Any, Result]],
    manifest: Manifest,
    seed: int = 0,
    link: Link | None = None,
    parameters: int = PARAMETERS,
) -> Result:
    """Runs `scenario` in a new swarm of the manifest's run, under virtual time."""

    async def main(network: SimulatedNetwork) -> Result:
        async with simulated_swarm(network, manifest, initial_state(manifest, parameters), QuadraticLearner) as swarm:
            return await scenario(swarm)

    return run_simulation(main, seed, link)


def samples(swarm: SimulatedSwarm) -> list[int]:
    return [peer.participant.samples_contributed for peer in swarm.peers.values()]


def check_nobody_was_charged(swarm: SimulatedSwarm) -> None:
    for peer in swarm.peers.values():
        charges = {charge: count for charge, count in peer.rejections.by_peer.items() if charge[1] not in HARMLESS}
        assert {reason for _, reason in charges} <= RACES, peer.rejections.words
        assert max(charges.values(), default=0) <= 16, peer.rejections.words
