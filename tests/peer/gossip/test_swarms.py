"""What users of a run without groups are promised: models come together, nobody waits for anybody, all end with one."""

import asyncio
import random
from collections.abc import Awaitable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from dht.simulated_link import Link
from peer.contents import ContentStore
from peer.gossip import merging
from peer.gossip.participant import GossipParticipant
from protocols.identity import PeerId
from protocols.manifest import Averaging
from protocols.state import ModelState
from protocols.vectors import Vector
from tests.peer.gossip.gossiping import (
    BATCH,
    SPEED,
    QuadraticGossipLearner,
    consensus_distance,
    gossip,
    simulate_gossip,
    start,
    start_all,
)
from tests.peer.simulated_swarm import SimulatedPeer, SimulatedSwarm, check_nobody_was_charged, distance

TOPOLOGIES: list[dict[str, Any]] = [
    {"topology": "random"},
    {"topology": "exponential"},
    {"topology": "ring"},
    {"topology": "regular", "degree": 3},
]
any_topology = pytest.mark.parametrize("training", TOPOLOGIES, ids=[t["topology"] for t in TOPOLOGIES])
STEP_SECONDS = BATCH / SPEED
NEAR = Link(latency_seconds=0.002)


def longest_pause(peer: SimulatedPeer, since: float, until: float) -> float:
    """Between two steps of its training."""
    moments = [since, *(m for m in peer.participant.learner.moments if since < m < until), until]
    return max(later - earlier for earlier, later in pairwise(moments))


@any_topology
def test_eight_learn_come_together_and_end_with_one_state(training: dict[str, Any]) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        peers = await start_all(swarm, 8)
        await swarm.until(lambda: min(peer.participant.epoch for peer in peers) >= 20, within=60)
        early = consensus_distance(peers)
        await swarm.finish(within=120)
        assert distance(peers[0].state) < 0.5
        for peer in peers:
            status = peer.participant.gossip_status
            assert status.consensus_distance < 0.5 * early
            assert status.exchanges > 50
            assert status.failed_exchanges == 0
            assert peer.participant.evaluation["distance"] == pytest.approx(distance(peer.state), rel=1e-5)
        check_nobody_was_charged(swarm)

    simulate_gossip(scenario, gossip(epochs=120, **training), link=NEAR)


def test_each_estimates_how_far_apart_the_models_are() -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        peers = await start_all(swarm, 8)
        await swarm.until(lambda: min(peer.participant.epoch for peer in peers) >= 100, within=60)
        measured = []
        for _ in range(40):
            await swarm.network.clock.sleep(STEP_SECONDS)
            measured.append(consensus_distance(peers))
        estimates = [peer.participant.gossip_status.consensus_distance for peer in peers]
        assert np.mean(estimates) == pytest.approx(np.mean(measured), rel=0.25)

    simulate_gossip(scenario, gossip(epochs=10_000), link=NEAR)


class Differing(QuadraticGossipLearner):
    """Has data of its own: its optimum is elsewhere than the others'."""

    def _noise(self, epoch: int, number: int) -> Vector:
        return super()._noise(epoch, number) + 3 * super()._noise(-1, 0)


def test_an_accelerated_ring_of_peers_whose_data_differ_is_closer_together() -> None:
    def mean_distance(**training: Any) -> float:
        async def scenario(swarm: SimulatedSwarm) -> float:
            peers = await start_all(swarm, 16, learns=Differing)
            await swarm.until(lambda: min(peer.participant.epoch for peer in peers) >= 60, within=60)
            measured = []
            for _ in range(40):
                await swarm.network.clock.sleep(STEP_SECONDS)
                measured.append(consensus_distance(peers))
            check_nobody_was_charged(swarm)
            return float(np.mean(measured))

        manifest = gossip(epochs=10_000, topology="ring", **training)
        return simulate_gossip(scenario, manifest, link=NEAR, parameters=256)

    assert mean_distance(accelerated=True) < 0.8 * mean_distance()


def test_training_goes_on_while_models_are_on_their_way() -> None:
    """Over a line that takes a model ten steps long, nobody makes a pause."""

    async def scenario(swarm: SimulatedSwarm) -> None:
        peers = await start_all(swarm, 4)
        await swarm.until(lambda: all(p.participant.exchanges.counts.completed >= 2 for p in peers), within=60)
        since = swarm.now
        await swarm.network.clock.sleep(10)
        for peer in peers:
            assert peer.participant.exchanges.patience.usual_seconds > 5 * STEP_SECONDS
            assert longest_pause(peer, since, swarm.now) < 1.01 * STEP_SECONDS

    line = 4 * 60_000 / (10 * STEP_SECONDS)
    simulate_gossip(scenario, gossip(epochs=10_000), link=Link(line, line), parameters=60_000)


@pytest.mark.parametrize("factor", [10, 100])
def test_a_straggler_costs_the_others_no_step(factor: int) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        peers = await start_all(swarm, 7)
        slow = await start(swarm, 7, speed=SPEED / factor)
        await swarm.until(lambda: all(peer.participant.joined for peer in [*peers, slow]), within=30)
        before, began = [peer.participant.learner.steps for peer in peers], swarm.now
        await swarm.network.clock.sleep(30)
        ideal = (swarm.now - began) / STEP_SECONDS
        for peer, steps in zip(peers, before, strict=True):
            assert peer.participant.learner.steps - steps >= 0.95 * ideal
        assert slow.participant.epoch >= min(peer.participant.epoch for peer in peers) - 2 * factor
        weights = [peer.participant.samples for peer in peers]
        assert slow.participant.samples <= max(2, max(weights) / factor * 3)

    simulate_gossip(scenario, gossip(epochs=10_000))


def test_a_straggler_ends_with_the_others() -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        await start_all(swarm, 5)
        await start(swarm, 5, speed=SPEED / 20)
        await swarm.finish(within=60)

    simulate_gossip(scenario, gossip(epochs=200))


def test_a_joiner_takes_a_neighbours_state_and_trains_on_from_there() -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        peers = await start_all(swarm, 4)
        await swarm.until(lambda: min(peer.participant.epoch for peer in peers) >= 100, within=60)
        joiner = await start(swarm, 4)
        await swarm.until(lambda: joiner.participant.joined, within=30)
        assert joiner.state.epoch >= 50
        assert distance(joiner.state) < 1
        await swarm.until(lambda: joiner.participant.exchanges.counts.completed >= 10, within=30)
        assert joiner.participant.samples > 0

    simulate_gossip(scenario, gossip(epochs=10_000))


def test_joiners_of_a_robust_run_begin_at_the_median_of_several() -> None:
    averaging = Averaging(rule="trimmed_mean", byzantine=1, quorum=3)

    async def scenario(swarm: SimulatedSwarm) -> None:
        peers = await start_all(swarm, 5)
        await swarm.until(lambda: min(peer.state.epoch for peer in peers) >= 60, within=60)
        liar = peers[2].participant
        lie = np.full(len(liar.state.parameters), 1e30, np.float32)
        liar.learner.weights[:] = lie
        joiner = await start(swarm, 5)
        await swarm.until(lambda: joiner.participant.joined, within=30)
        assert joiner.state.epoch >= 30
        assert distance(joiner.state) < 1

    manifest = gossip(10_000, averaging, topology="regular", degree=4, mixing="rule")
    simulate_gossip(scenario, manifest)


@any_topology
def test_kills_and_joins_at_random_stall_nobody(training: dict[str, Any]) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        chance = random.Random(7)
        peers = await start_all(swarm, 8)
        await swarm.until(lambda: all(peer.participant.joined for peer in peers), within=30)
        for number in range(8, 12):
            await swarm.network.clock.sleep(chance.uniform(0, 1))
            victim = chance.choice(swarm.running)
            began = swarm.now
            await swarm.crash(victim)
            others = swarm.running
            if chance.random() < 0.7:
                await start(swarm, number)
            else:
                await start(swarm, victim.number, state=victim.state)
            await swarm.network.clock.sleep(5)
            for peer in others:
                assert longest_pause(peer, began, swarm.now) <= 1.01 * STEP_SECONDS
                assert peer.participant.exchanges.counts.completed > 0
        await swarm.finish(within=200)
        assert distance(swarm.running[0].state) < 0.5

    simulate_gossip(scenario, gossip(epochs=400, **training))


def test_a_run_that_does_not_merge_ends_with_models_that_are_close() -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        peers = await start_all(swarm, 4)
        last = swarm.manifest.epochs
        await swarm.until(lambda: all(p.state.epoch == last and p.participant.phase == "idle" for p in peers), 60)
        assert len({peer.state.digest for peer in peers}) > 1
        assert max(distance(peer.state) for peer in peers) < 0.5

    simulate_gossip(scenario, gossip(merges_at_end=False))


def test_who_comes_after_the_end_takes_the_merged_state() -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        await start_all(swarm, 3)
        await swarm.finish(within=60)
        late = await start(swarm, 3)
        await swarm.finish(within=60)
        assert late.participant.learner.steps == 0

    simulate_gossip(scenario, gossip(epochs=70))


def test_all_end_with_one_state_though_some_cannot_be_dialled() -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        await start_all(swarm, 4)
        for number in range(4, 7):
            await start(swarm, number, client_mode=True)
        await swarm.finish(within=60)

    simulate_gossip(scenario, gossip(epochs=70))


def test_who_has_merged_otherwise_takes_what_most_have() -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        peers = await start_all(swarm, 4)
        odd = peers[1].participant
        merge = odd._merging.merge

        async def merge_otherwise(own: ModelState, contents: ContentStore) -> ModelState:
            state = await merge(own, contents)
            return ModelState(state.run, state.epoch, state.parameters + 1, state.slots)

        odd._merging.merge = merge_otherwise
        await swarm.until(lambda: odd.state.epoch == 70 and distance(odd.state) > 0.5, within=60)
        await swarm.finish(within=60)

    simulate_gossip(scenario, gossip(epochs=70))


def test_a_swarm_that_has_merged_to_two_states_of_as_many_settles_for_one_of_them() -> None:
    """As when one dies in the merge, or shows its last state to half of them, and comes no further itself."""

    async def scenario(swarm: SimulatedSwarm) -> None:
        peers = await start_all(swarm, 6)
        await start(swarm, 6, make=Undecided)
        for peer in peers[:3]:
            merge = peer.participant._merging.merge
            peer.participant._merging.merge = lambda own, contents, merge=merge: _shifted(merge(own, contents))
        await swarm.until(lambda: all(peer.state.epoch == 70 for peer in peers), within=60)
        assert len({peer.state.digest for peer in peers}) == 2
        await swarm.until(lambda: len({peer.state.digest for peer in peers}) == 1, within=60)

    simulate_gossip(scenario, gossip(epochs=70))


class Undecided(GossipParticipant):
    """Stays at its last state."""

    async def _merge(self) -> None:
        await self._leaving.wait()


async def _shifted(merged: Awaitable[ModelState]) -> ModelState:
    state = await merged
    return ModelState(state.run, state.epoch, state.parameters + 1, state.slots)


def test_the_last_state_of_who_comes_last_is_merged_by_all_however_late_its_news_are_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It merges at once, as all others are there, and is beyond its last state when they ask again."""
    members: list[int] = []
    merge = merging.merge

    async def counted(*given: Any) -> tuple[ModelState, int]:
        state, count = await merge(*given)
        members.append(count)
        return state, count

    async def asks_later(self: merging.Merging, _committee: list[PeerId]) -> None:
        await self._transport.clock.sleep(merging.ASK_AGAIN_SECONDS)

    async def scenario(swarm: SimulatedSwarm) -> None:
        peers = await start_all(swarm, 4)
        last = peers[3].participant
        show = last._own.show_as_it_is

        async def show_late() -> None:
            if last.epoch == 69:
                await swarm.network.clock.sleep(5)
            await show()

        monkeypatch.setattr(last._own, "show_as_it_is", show_late)
        monkeypatch.setattr(last.membership, "announce", lambda: None)
        await swarm.finish(within=60)

    monkeypatch.setattr(merging.Merging, "_hear_of", asks_later)
    monkeypatch.setattr(merging, "merge", counted)
    simulate_gossip(scenario, gossip(epochs=70))
    assert set(members) == {4}


def test_leaving_finishes_what_is_under_way_and_tells_the_others() -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        peers = await start_all(swarm, 4)
        await swarm.until(lambda: all(p.participant.exchanges.counts.completed > 5 for p in peers), within=30)
        began = swarm.now
        await swarm.leave(peers[0])
        assert swarm.now - began < 2
        assert all(peers[0].peer not in [m.peer for m in p.participant.membership.roster] for p in peers[1:])
        assert peers[0].state.epoch == peers[0].participant.epoch

    simulate_gossip(scenario, gossip(epochs=10_000))


def test_a_member_whose_model_runs_away_takes_anothers() -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        peers = await start_all(swarm, 4)
        await swarm.until(lambda: min(peer.state.epoch for peer in peers) > 80, within=60)
        peers[1].participant.learner.weights[:] = np.nan
        await swarm.until(lambda: peers[1].resyncs == 1 and peers[1].participant.joined, within=30)
        await swarm.network.clock.sleep(3)
        assert all(np.isfinite(peer.participant.learner.weights).all() for peer in peers)
        assert max(distance(peer.state) for peer in peers) < 1
        assert all(peer.participant.rejections.by_reason.keys() <= {"busy"} for peer in peers)

    simulate_gossip(scenario, gossip(epochs=10_000))


def test_codecs_and_variance_correction_change_no_promise() -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        peers = await start_all(swarm, 4)
        await swarm.finish(within=60)
        assert distance(peers[0].state) < 0.5

    for codec in ("float16", "int8"):
        simulate_gossip(scenario, gossip(averaging=Averaging(codec=codec)))
    simulate_gossip(scenario, gossip(corrects_variance=True))


def test_the_same_seed_gives_the_same_run() -> None:
    async def scenario(swarm: SimulatedSwarm) -> str:
        await start_all(swarm, 5)
        await swarm.finish(within=60)
        return swarm.network.trace()

    assert simulate_gossip(scenario, gossip(epochs=40)) == simulate_gossip(scenario, gossip(epochs=40))


def test_a_quorum_is_waited_for() -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        first = await start(swarm, 0)
        await asyncio.sleep(10)
        assert first.participant.epoch == 0
        await start(swarm, 1)
        await swarm.until(lambda: first.participant.epoch > 5, within=20)

    simulate_gossip(scenario, gossip(averaging=Averaging(quorum=2)))
