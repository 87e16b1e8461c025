"""Members check each other: liars of every kind are found out and banned by all honest members, and nobody else is."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from peer.participant import Participant
from protocols.attacks import make_attack
from protocols.manifest import Averaging, Manifest, Verification
from tests.peer.simulated_swarm import QuadraticLearner, SimulatedPeer, SimulatedSwarm, data_parallel, local_sgd, simulate
from tests.peer.test_robust_rounds import ATTACKS, HONEST, Liar

ATTACKERS = (HONEST, HONEST + 1)
EPOCHS_UNTIL_BANNED = 15
RULES = ["median", "nnm | trimmed_mean"]


def verified(rule: str = "median", make: Callable[..., Manifest] = data_parallel, codec: str = "none") -> Manifest:
    return make(epochs=200, codec=codec).model_copy(
        update={
            "averaging": Averaging(rule=rule, byzantine=2, quorum=5, codec=codec),
            "verification": Verification(validators=3),
        }
    )


def banned(peer: SimulatedPeer) -> set[str]:
    return set(peer.participant._admission.banned)


async def until_banned(swarm: SimulatedSwarm, liars: list[SimulatedPeer]) -> int:
    """All honest ban all liars and nobody else; returns how many epochs that took."""
    honest = [swarm.peers[number] for number in range(HONEST)]
    await swarm.until(lambda: all(peer.participant.joined for peer in honest), within=60)
    first = min(peer.state.epoch for peer in honest)
    expected = {liar.peer for liar in liars}
    await swarm.until(lambda: all(banned(peer) >= expected for peer in honest), within=600)
    epochs = max(peer.state.epoch for peer in honest) - first
    await swarm.epoch(max(peer.state.epoch for peer in honest) + 3)
    await swarm.until(lambda: len({peer.state.digest for peer in honest}) == 1, within=60)
    assert all(banned(peer) == expected for peer in honest)
    return epochs


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("attack", ATTACKS, ids=["sign flip", "alie", "ipm", "delayed"])
def test_who_sends_something_else_than_its_work_is_banned_by_all(attack: Any, rule: str) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(HONEST)
        liars = [await swarm.start(number, learns=partial(Liar, attack())) for number in ATTACKERS]
        assert await until_banned(swarm, liars) <= EPOCHS_UNTIL_BANNED

    simulate(scenario, verified(rule), seed=1)


@pytest.mark.parametrize("codec", ["none", "float16", "int8"])
@pytest.mark.parametrize("make", [data_parallel, local_sgd])
def test_nobody_is_banned_who_works(make: Callable[..., Manifest], codec: str) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(HONEST)
        await swarm.epoch(12)
        assert all(not banned(peer) for peer in swarm.members)
        checked = [peer.participant.inspector.validated_samples for peer in swarm.members]
        assert sum(checked) > 0

    simulate(scenario, verified("nnm | trimmed_mean", make, codec), seed=2)
