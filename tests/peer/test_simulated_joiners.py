"""Who joins a run that goes on, over a simulated network: it catches up, and delays nobody."""

import random
from statistics import median
from typing import Any

import numpy as np
import pytest

from dht.interfaces import Transport
from dht.simulated_link import Link
from peer import joining
from peer.content_fetch import ContentNotFound
from peer.participant import GRACE_EVERY, Participant
from protocols.heads import Choice
from protocols.manifest import AdamW
from protocols.state import ModelState
from tests.peer.block_counts import CountingTransport
from tests.peer.simulated_swarm import (
    MEGABIT,
    MODES,
    ManifestOf,
    SimulatedSwarm,
    check_nobody_was_charged,
    data_parallel,
    samples,
    simulate,
)


@MODES
def test_joiners_in_mid_run_delay_nobody(manifest_of: ManifestOf) -> None:
    def pace(joiners: int) -> float:
        async def scenario(swarm: SimulatedSwarm) -> float:
            await swarm.start_all(3)
            chance = random.Random(1)
            await swarm.epoch(5)
            for number in range(3, 3 + joiners):
                await swarm.network.clock.sleep(chance.uniform(0, 3))
                await swarm.start(number)
            await swarm.finish(within=200)
            assert all(samples(swarm))
            return swarm.pace(swarm.peers[0])

        return simulate(scenario, manifest_of(epochs=20), seed=1)

    assert pace(joiners=3) < 1.25 * pace(joiners=0)


def test_a_joiner_on_a_slow_link_catches_up() -> None:
    """Its state of 1.2 MB takes ten seconds, and the swarm goes on meanwhile."""

    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(3)
        await swarm.epoch(4)
        began = swarm.now
        joiner = await swarm.start(3, link=Link(1 * MEGABIT, 1 * MEGABIT))
        await swarm.until(lambda: joiner.participant.joined, within=60)
        assert swarm.now - began > 2 * swarm.pace(swarm.peers[0])
        await swarm.until(lambda: joiner.participant.samples_contributed, within=60)
        assert joiner.participant.largest_group == 4, "it has trained on by itself"
        await swarm.finish(within=300)

    simulate(scenario, data_parallel(epochs=40, codec="int8", target_batch=1500), parameters=150_000)


def test_a_joiner_whose_state_takes_longer_than_two_epochs_catches_up_by_their_results() -> None:
    """5 Mbit/s: 38 s for AdamW's state of 24 MB and 13 s for a result, in epochs of 20 s.

    Memory has room for the results of two epochs. To fetch the state anew would give it one that is as old again.
    """
    manifest = data_parallel(epochs=1000, target_batch=6000)
    training = manifest.training.model_copy(update={"optimizer": AdamW(learning_rate=0.01)})

    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(3, speed=100.0, link=Link(100 * MEGABIT, 100 * MEGABIT))
        await swarm.epoch(2, within=400)
        joiner = await swarm.start(3, speed=50.0, link=Link(5 * MEGABIT, 5 * MEGABIT))
        await swarm.until(lambda: joiner.participant.samples_contributed, within=200)
        assert joiner.participant._joining._fetches <= 1
        assert joiner.participant.largest_group == 4, "it has trained on by itself"

    simulate(scenario, manifest.model_copy(update={"training": training}), parameters=2_000_000)


@pytest.mark.parametrize("seed", range(4))
def test_a_joiner_that_has_each_result_after_the_next_epoch_is_closed_is_waited_for(seed: int) -> None:
    """An epoch trains for 0.3 s and averages for 0.5 s, and its result takes the joiner another 0.5 s."""

    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(2, speed=3000.0, link=Link(100 * MEGABIT, 100 * MEGABIT))
        await swarm.epoch(5)
        await swarm.network.clock.sleep(random.Random(seed).uniform(0, 1))
        joiner = await swarm.start(2, speed=2000.0, link=Link(100 * MEGABIT, 100 * MEGABIT))
        await swarm.until(lambda: joiner.participant.joined, within=10)
        await swarm.until(lambda: joiner.participant.samples_contributed, within=10)

    simulate(scenario, data_parallel(epochs=2000, target_batch=2000), seed, parameters=620_000)


def test_who_is_too_slow_for_the_run_fetches_its_state_less_and_less() -> None:
    """A state takes it 12 seconds, in which the others go on by ten epochs."""

    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(2, speed=3000.0, link=Link(100 * MEGABIT, 100 * MEGABIT))
        await swarm.epoch(5)
        slow = await swarm.start(2, speed=2000.0, link=Link(MEGABIT / 10, MEGABIT / 10))
        await swarm.until(lambda: slow.participant._joining._fetches == 4, within=120)
        await swarm.network.clock.sleep(4 * 12)  # as long as it rests, and fetches once more
        assert slow.participant._joining._fetches <= 5
        await swarm.until(lambda: slow.participant._joining._fetches == 7, within=400)  # but goes on doing so

    simulate(scenario, data_parallel(epochs=2000, target_batch=6000), parameters=18_000)


def test_a_joiner_that_could_not_fetch_the_state_for_a_while_is_not_alone_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its line has failed, not the others; and until it has their state, it plays no epochs of its own against them."""
    fetch, failures = joining.fetch_state, 2 * joining.EMPTY_CLAIMS

    async def fails_at_first(transport: Transport, like: ModelState, choice: Choice) -> ModelState:
        nonlocal failures
        if failures:
            failures -= 1
            raise ContentNotFound("nobody gives it")
        return await fetch(transport, like, choice)

    monkeypatch.setattr(joining, "fetch_state", fails_at_first)

    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(3)
        await swarm.epoch(4)
        joiner = await swarm.start(3)
        await swarm.until(lambda: not failures and joiner.participant.joined, within=400)
        await swarm.until(lambda: joiner.participant.samples_contributed, within=60)
        check_nobody_was_charged(swarm)

    simulate(scenario, data_parallel(epochs=2000))


class Laggard(Participant):
    """Has the swarm's state, and stays where it is."""

    async def _play_round(self) -> None:
        await self._leaving.wait()

    async def _watch(self) -> None:
        await self._leaving.wait()


def test_who_is_always_late_costs_an_eighth() -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        first = await swarm.start(0)
        await swarm.start(1)
        await swarm.epoch(4)
        late = await swarm.start(2, make=Laggard)
        await swarm.until(lambda: late.participant.joined, within=60)
        await swarm.epoch(18)  # its state is remembered for 16 epochs
        times = [moment for _, moment in sorted(first.epoch_times.items())]
        seconds = dict(enumerate(np.diff(times)))
        ordinary = median(seconds[epoch] for epoch in range(8, 18) if epoch % GRACE_EVERY)
        assert 1.5 * ordinary < seconds[8] < 2.5 * ordinary
        assert all(seconds[epoch] < 1.2 * ordinary for epoch in range(9, 16))

    simulate(scenario, data_parallel(epochs=100))


@pytest.mark.parametrize("seed", range(16))
def test_a_joiner_that_runs_after_short_epochs_leaves_nobody_a_history_of_its_own(seed: int) -> None:
    """An epoch takes 0.2 s; the other closes it while the joiner still fetches the one before."""

    async def scenario(swarm: SimulatedSwarm) -> None:
        first = await swarm.start(0, speed=1000.0)
        await swarm.epoch(5)
        await swarm.network.clock.sleep(random.Random(seed).uniform(0, 1))
        joiner = await swarm.start(1, speed=1000.0)
        await swarm.until(lambda: joiner.participant.joined, within=60)
        await swarm.epoch(first.state.epoch + 12)
        assert (first.resyncs, joiner.resyncs) == (0, 0)
        assert all(first.digests.get(epoch, digest) == digest for epoch, digest in joiner.digests.items())

    simulate(scenario, data_parallel(epochs=200, target_batch=200), seed)


def test_a_joiner_is_served_by_several_members_at_once_while_rounds_go_on() -> None:
    """A state of six blocks, which takes the joiner four seconds; an epoch takes the others about one."""
    transports: list[CountingTransport] = []

    def counted(**given: Any) -> Participant:
        transports.append(CountingTransport(given["transport"]))
        return Participant(**(given | {"transport": transports[0]}))

    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(3, link=Link(100 * MEGABIT, 100 * MEGABIT))
        await swarm.epoch(3)
        await swarm.until(swarm.agree, within=30)
        joiner = await swarm.start(3, make=counted, link=Link(12 * MEGABIT, 12 * MEGABIT))
        await swarm.until(lambda: joiner.participant.joined, within=60)
        counts = transports[0].counts
        blocks = len(joiner.state.index.blocks)
        assert blocks == 6
        assert counts.by_holder.keys() == {swarm.peers[number].peer for number in range(3)}
        assert sum(counts.by_holder.values()) == blocks
        assert max(counts.by_holder.values()) <= blocks / 2
        assert counts.most_holders_at_once == 3
        meanwhile = [m for m in swarm.peers[0].epoch_times.values() if counts.began < m < counts.ended]
        assert len(meanwhile) >= 2
        await swarm.finish(within=300)

    simulate(scenario, data_parallel(epochs=8, codec="int8"), seed=9, parameters=750_000)
