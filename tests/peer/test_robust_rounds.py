"""Attackers in rounds of whole participants: with a robust rule the honest learn as if they were not there."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from protocols.attacks import Attack, Scene, make_attack
from protocols.manifest import Averaging
from protocols.vectors import Vector
from tests.peer.simulated_swarm import QuadraticLearner, SimulatedSwarm, data_parallel, distance, simulate

HONEST, ATTACKERS = 5, 2
EPOCHS = 30
LEARNT = 3.0
"""Distance to the goal, of 10 at the start."""
SIGN_FLIP = partial(make_attack, "sign_flip", scale=1000.0)
ATTACKS = [
    SIGN_FLIP,
    partial(make_attack, "alie"),
    partial(make_attack, "ipm"),
    partial(make_attack, "delayed", epochs=5),
]


class Liar(QuadraticLearner):
    """Sends what its attack makes of what it and others like it would honestly send."""

    def __init__(self, attack: Attack, *rest: Any) -> None:
        super().__init__(*rest)
        self._attack = attack
        self._random = np.random.default_rng(1)

    async def update(self) -> tuple[Vector, int] | None:
        made = await super().update()
        if made is None:
            return None
        own, weight = made
        honest = own + self._random.normal(0.0, 0.5, (HONEST, len(own))).astype(np.float32)
        return self._attack(Scene(own, honest, ATTACKERS, self._random)), weight


async def learn_beside_liars(swarm: SimulatedSwarm, attack: Callable[[], Attack]) -> float:
    """The distance of the honest, who agree, to the goal in the end."""
    for number in range(ATTACKERS):
        await swarm.start(HONEST + number, learns=partial(Liar, attack()))
    await swarm.start_all(HONEST)
    await swarm.finish(within=600)
    assert len({peer.state.digest for peer in swarm.members}) == 1
    return distance(swarm.peers[0].state)


def play(rule: str, byzantine: int, attack: Callable[[], Attack]) -> float:
    averaging = Averaging(rule=rule, byzantine=byzantine, quorum=HONEST + ATTACKERS)
    manifest = data_parallel(epochs=EPOCHS).model_copy(update={"averaging": averaging})
    return simulate(partial(learn_beside_liars, attack=attack), manifest, seed=1)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.args[0])
def test_with_a_robust_rule_the_honest_learn(attack: Callable[[], Attack]) -> None:
    assert play("trimmed_mean", ATTACKERS, attack) < LEARNT


@pytest.mark.parametrize("rule", ["median", "meamed", "krum", "geometric_median", "nnm | trimmed_mean"])
def test_with_every_kind_of_robust_rule(rule: str) -> None:
    assert play(rule, ATTACKERS, SIGN_FLIP) < LEARNT


def test_with_the_mean_they_do_not() -> None:
    assert play("mean", 0, partial(make_attack, "ipm", scale=10.0)) > 100 * LEARNT
