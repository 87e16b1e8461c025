"""Members check each other: liars of every kind are found out and banned by all honest members, and nobody else is."""

import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dht.simulated_link import Link
from peer.participant import Participant
from peer.verification.account import RoundAccount
from peer.verification.checks import WRONG_OBSERVATION, WRONG_PART, Checks, Finding
from protocols.aggregation import Plan
from protocols.manifest import Averaging, Manifest, Verification
from protocols.rules import CoordinateWiseRule, DistanceRule, Matrix, Rows, rule_of
from protocols.state import ModelState
from protocols.vectors import Vector
from protocols.verification.charges import SenderCharge
from protocols.verification.duties import Duty
from tests.peer.simulated_swarm import SimulatedPeer, SimulatedSwarm, data_parallel, local_sgd, simulate
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


# -- owners -----------------------------------------------------------------------------------------------------------


class Negated(CoordinateWiseRule):
    name = "negated"

    def __init__(self, honest: CoordinateWiseRule) -> None:
        self._honest = honest

    def aggregate(self, rows: Rows, weights: Any) -> Vector:
        return -self._honest.aggregate(rows, weights)


class NegatedDistances(DistanceRule):
    def plan(self, gram: Matrix) -> Plan:
        plan = super().plan(gram)
        return replace(plan, matrix=-plan.matrix)


class FalseDistances(DistanceRule):
    """Seems to see that the second member is far from everybody."""

    def observe(self, rows: NDArray[np.float32]) -> Matrix:
        gram = super().observe(rows)
        gram[1, 1] *= 100
        return gram


def with_rule(make: Callable[[Manifest], Any]) -> Callable[..., Participant]:
    """A member that uses another rule than the run's."""

    def made(**given: Any) -> Participant:
        participant = Participant(**given)
        participant._plan = replace(participant._plan, rule=make(participant.manifest))
        return participant

    return made


def negated(manifest: Manifest) -> Negated:
    honest = rule_of(manifest.averaging)
    assert isinstance(honest, CoordinateWiseRule)
    return Negated(honest)


def distances(kind: type[DistanceRule]) -> Callable[[Manifest], DistanceRule]:
    return lambda manifest: kind(manifest.averaging.rule, manifest.averaging.byzantine, {})


@pytest.mark.parametrize(
    ("rule", "make", "why"),
    [
        ("median", negated, WRONG_PART),
        ("nnm | trimmed_mean", distances(NegatedDistances), WRONG_PART),
        ("nnm | trimmed_mean", distances(FalseDistances), WRONG_OBSERVATION),
    ],
    ids=["coordinates", "weights", "distances"],
)
def test_who_reduces_something_else_than_it_was_sent_is_banned_by_all(rule: str, make: Any, why: str) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(HONEST)
        liars = [await swarm.start(number, make=with_rule(make)) for number in ATTACKERS]
        assert await until_banned(swarm, liars) <= EPOCHS_UNTIL_BANNED
        assert set(swarm.peers[0].participant._admission.banned.values()) == {why}

    simulate(scenario, verified(rule), seed=1)


# -- validators -------------------------------------------------------------------------------------------------------


class Slanderer(Checks):
    """Charges whomever it is to check, whatever comes of it."""

    async def _check_sender(self, duty: Duty, account: RoundAccount, state: ModelState) -> Finding | None:
        assert duty.sender is not None
        peers = [member.peer for member in account.begin.body.members]
        row = await self._shown(account, duty.chunks[0], peers.index(duty.sender))
        if row is None:
            return None
        payload = bytes(row.payload)
        charge = SenderCharge(
            begin=account.begin.wire, contribution=row.contribution, chunk=duty.chunks[0], payload=payload
        )
        return Finding(duty.sender, "slander", charge)


def slanderer(**given: Any) -> Participant:
    participant = Participant(**given)
    assert participant.inspector is not None
    participant.inspector._checks.__class__ = Slanderer
    return participant


def test_who_charges_the_innocent_is_banned_by_all() -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(HONEST)
        liars = [await swarm.start(number, make=slanderer) for number in ATTACKERS]
        assert await until_banned(swarm, liars) <= 2 * EPOCHS_UNTIL_BANNED  # each has to be a validator first

    simulate(scenario, verified(), seed=1)


# -- those who come later ---------------------------------------------------------------------------------------------


def test_who_joins_later_takes_over_the_bans() -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(HONEST)
        liars = [await swarm.start(number, learns=partial(Liar, ATTACKS[0]())) for number in ATTACKERS]
        await until_banned(swarm, liars)
        joiner = await swarm.start(9)
        await swarm.until(lambda: joiner.participant.joined, within=60)
        assert banned(joiner) == {liar.peer for liar in liars}
        await swarm.until(lambda: joiner.participant.samples_contributed, within=60)

    simulate(scenario, verified(), seed=1)


# -- those who are not to blame ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_nobody_is_banned_who_crashes_or_is_slow(seed: int) -> None:
    chance = random.Random(seed)

    async def scenario(swarm: SimulatedSwarm) -> None:
        for number in range(HONEST + 2):
            await swarm.start(number, link=Link(1.25e5, 1.25e5) if number == 0 else None)
        await swarm.epoch(2)
        for _ in range(6):
            await swarm.network.clock.sleep(chance.uniform(0.2, 3))
            victim = swarm.peers[chance.randrange(1, HONEST + 2)]
            await swarm.crash(victim)
            await swarm.network.clock.sleep(chance.uniform(0.2, 2))
            await swarm.restart(victim)
        first = max(peer.state.epoch for peer in swarm.members)
        await swarm.epoch(first + 8)
        assert all(not banned(peer) for peer in swarm.members)

    simulate(scenario, verified("nnm | trimmed_mean"), seed)
