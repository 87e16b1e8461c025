"""Newcomers on probation, and members that keep others waiting, as whole participants over a simulated network."""

import asyncio
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from dht.interfaces import Stream
from dht.simulated_link import Link
from peer.participant import Participant
from peer.rounds.session import RoundOutcome
from peer.view import status_of
from protocols.identity import PeerId
from protocols.manifest import Admission, Manifest
from protocols.probation import room_for
from tests.peer.simulated_swarm import SimulatedSwarm, data_parallel, identity, local_sgd, simulate

MODES = pytest.mark.parametrize("manifest_of", [data_parallel, local_sgd])
MEGABIT = 125_000.0
PROBATION = Admission(probation_epochs=5)


def with_probation(manifest: Manifest) -> Manifest:
    return manifest.model_copy(update={"admission": PROBATION})


def peers(numbers: range) -> set[PeerId]:
    return {identity(number).peer_id for number in numbers}


# -- probation --------------------------------------------------------------------------------------------------------


@MODES
@pytest.mark.parametrize("stagger", [0.0, 3.0])
def test_a_run_with_a_probation_starts_and_all_who_come_in_its_first_epochs_lead(
    manifest_of: Callable[..., Manifest], stagger: float
) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(4, stagger)
        await swarm.finish(within=200)
        assert all(peer.participant.samples_contributed for peer in swarm.members)
        assert all(len(peer.participant._heads.seniors) >= 3 for peer in swarm.members)

    simulate(scenario, with_probation(manifest_of(epochs=40)), seed=1)


@MODES
def test_a_swarm_with_a_probation_that_comes_back_from_snapshots_goes_on(manifest_of: Callable[..., Manifest]) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(4)
        await swarm.epoch(10)
        members = swarm.running
        for peer in members:
            swarm.strike(peer)
        for peer in members:
            await swarm.bury(peer)
        for peer in members:
            await swarm.restart(peer, state=peer.state)
        await swarm.until(lambda: all(len(p.participant.fellows.group) == 4 for p in swarm.members), within=120)
        assert swarm.agree() or swarm.running

    simulate(scenario, with_probation(manifest_of(epochs=1000)), seed=2)


@MODES
def test_a_flood_of_newcomers_gets_its_share_of_groups_and_leads_only_when_it_has_served(
    manifest_of: Callable[..., Manifest],
) -> None:
    outcomes: list[RoundOutcome] = []
    sybils = peers(range(4, 16))

    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start(0, make=lambda **given: Participant(**given | {"on_round": outcomes.append}))
        for number in range(1, 4):
            await swarm.start(number)
        await swarm.epoch(8)
        for number in range(4, 16):
            await swarm.start(number)
        await swarm.until(lambda: any(sybils & set(outcome.done.body.members) for outcome in outcomes), within=60)
        await swarm.epoch(outcomes[-1].done.epoch + 12, within=600)

    simulate(scenario, with_probation(manifest_of(epochs=1000)), seed=3)
    served: dict[PeerId, int] = {}
    for outcome in outcomes:
        members = set(outcome.done.body.members)
        newcomers = {peer for peer in members & sybils if served.get(peer, 0) < PROBATION.probation_epochs}
        assert len(newcomers) <= room_for(0.25, len(members - newcomers), 1, 64)
        assert outcome.done.sender not in newcomers
        for peer in members:
            served[peer] = served.get(peer, 0) + 1
    assert max(served.get(peer, 0) for peer in peers(range(4))) == len(outcomes)
    assert sybils & served.keys()


def test_a_joiner_among_many_newcomers_follows_the_seniors() -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(3)
        await swarm.epoch(8)
        for number in range(3, 12):
            await swarm.start(number)
        await swarm.until(lambda: all(peer.participant.joined for peer in swarm.members), within=60)
        joiner = await swarm.start(12)
        await swarm.until(lambda: joiner.participant.joined, within=60)
        joined_at = joiner.state.epoch
        assert set(joiner.participant.fellows.group) >= peers(range(3))
        assert len(joiner.participant.fellows.group) <= 4
        await swarm.until(lambda: joiner.state.epoch >= joined_at + 6, within=60)
        assert joiner.resyncs == 0

    simulate(scenario, with_probation(data_parallel(epochs=1000)), seed=4)


# -- suspensions ------------------------------------------------------------------------------------------------------


class Withholder(Participant):
    """Sends its update and reads results, but lets nobody send to its own parts, and so gives none of their results."""

    withholds = False

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        serve_part = self._conversation._serve_part

        async def serve_unless_withheld(stream: Stream) -> None:
            await (asyncio.Event().wait() if self.withholds else serve_part(stream))

        self._conversation._serve_part = serve_unless_withheld  # type: ignore[method-assign]


def most_suspensions(swarm: SimulatedSwarm) -> int:
    """How often anybody has been suspended by anybody, as far as that is still remembered."""
    kept = [peer.participant._suspensions._accounts for peer in swarm.peers.values()]
    return max((account.suspensions for accounts in kept for account in accounts.values()), default=0)


def test_who_withholds_its_parts_costs_less_and_less_and_is_back_when_it_works() -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(4)
        bad = await swarm.start(4, make=Withholder)
        honest = swarm.peers[0]
        await swarm.until(lambda: len(honest.participant.fellows.group) == 5, within=60)
        pace = swarm.pace(honest)
        bad.participant.withholds = True  # type: ignore[attr-defined]
        first = honest.state.epoch
        await swarm.epoch(first + 40, within=1000)
        moments = [honest.epoch_times[epoch] for epoch in sorted(honest.epoch_times) if epoch >= first]
        spoilt = [later - earlier > 3 * pace for earlier, later in pairwise(moments)]
        assert any(spoilt[:3])
        assert sum(spoilt[20:40]) <= 2 < sum(spoilt)
        assert [p.suspended for p in status_of(honest.participant, honest.peer).peers if p.peer_id == bad.peer] != [0]
        bad.participant.withholds = False  # type: ignore[attr-defined]
        await swarm.until(lambda: len(honest.participant.fellows.group) == 5, within=1000)

    simulate(scenario, data_parallel(epochs=1000, target_batch=2000), seed=5)


@pytest.mark.parametrize("seed", range(3))
def test_who_crashes_and_comes_back_is_not_suspended(seed: int) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(4)
        for number in (1, 2):
            await swarm.epoch(swarm.peers[0].state.epoch + 4)
            victim = swarm.peers[number]
            await swarm.network.clock.sleep(0.4 * seed)
            await swarm.crash(victim)
            await swarm.network.clock.sleep(3)
            await swarm.restart(victim, state=victim.state)
            await swarm.until(lambda: len(swarm.peers[0].participant.fellows.group) == 4, within=60)
        assert most_suspensions(swarm) == 0

    simulate(scenario, data_parallel(epochs=1000, target_batch=2000), seed)


def test_who_sits_behind_a_slow_link_is_not_suspended_for_more_than_the_least() -> None:
    """5 Mbit/s among 100 Mbit/s, and an update of 600 kB."""

    async def scenario(swarm: SimulatedSwarm) -> None:
        for number in range(4):
            rate = (5 if number == 3 else 100) * MEGABIT
            await swarm.start(number, link=Link(rate, rate))
        await swarm.epoch(12)
        assert most_suspensions(swarm) <= 1
        assert swarm.peers[3].participant.samples_contributed

    simulate(scenario, data_parallel(epochs=1000, target_batch=4000), parameters=150_000)
