"""What users of a swarm are promised, for whole participants over a simulated network: nobody hangs, the survivors end
with one state, bit for bit, and everybody who trains contributes."""

import asyncio
import random
from collections import Counter
from functools import partial
from statistics import median
from typing import Any

import pytest

from dht.simulated_link import Link
from protocols.manifest import Averaging
from protocols.signed import Signer
from tests.peer.simulated_swarm import (
    MEGABIT,
    MODES,
    ManifestOf,
    SimulatedSwarm,
    check_nobody_was_charged,
    data_parallel,
    distance,
    identity,
    local_sgd,
    samples,
    simulate,
)

# -- starting ---------------------------------------------------------------------------------------------------------


@MODES
@pytest.mark.parametrize(
    ("count", "stagger", "codec"),
    [(1, 0.0, "none"), (2, 0.0, "int8"), (2, 0.7, "float16"), (4, 0.0, "none"), (4, 0.7, "int8"), (12, 0.1, "float16")],
)
def test_all_who_start_end_with_one_state(manifest_of: ManifestOf, count: int, stagger: float, codec: str) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(count, stagger)
        await swarm.finish(within=120)
        assert all(samples(swarm))
        assert distance(swarm.peers[0].state) < (7 if count < 10 else 9)
        check_nobody_was_charged(swarm)

    simulate(scenario, manifest_of(epochs=20, codec=codec), seed=count)


def test_what_a_leader_says_to_all_is_signed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    signed, sign = Counter[str](), Signer.sign

    def count(signer: Signer, body: Any, epoch: int) -> Any:
        signed[body.kind] += 1
        return sign(signer, body, epoch)

    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(8, 0.0)
        await swarm.finish(within=120)
        check_nobody_was_charged(swarm)

    epochs = 10
    monkeypatch.setattr(Signer, "sign", count)
    simulate(scenario, data_parallel(epochs=epochs), seed=3)
    assert epochs <= signed["done"] <= 2 * epochs
    assert signed["begin"] < 8 * epochs  # once more for who says again that it is ready
    assert signed["ready"] >= 8 * epochs


def check_one_history(swarm: SimulatedSwarm, epochs: int, when: str = "") -> None:
    """No two members were in different states at one of the first epochs."""
    for epoch in range(epochs):
        states = {peer.digests[epoch] for peer in swarm.members if epoch in peer.digests}
        assert len(states) <= 1, f"{len(states)} states at epoch {epoch} {when}"


@pytest.mark.parametrize("stagger", [0.0, 0.02, 0.1])
@pytest.mark.parametrize("seed", range(5))
def test_who_starts_together_has_one_history_however_short_the_epochs(stagger: float, seed: int) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(4, stagger, speed=8000.0)
        await swarm.epoch(20)
        check_one_history(swarm, 20)

    simulate(scenario, data_parallel(epochs=1000), seed)


@pytest.mark.parametrize("block", range(4))
def test_who_comes_while_the_first_member_closes_its_first_epoch_has_its_history(block: int) -> None:
    async def scenario(swarm: SimulatedSwarm, delay: float) -> None:
        await swarm.start(0)  # closes it after 2.2 seconds, if it is alone
        await swarm.network.clock.sleep(delay)
        await swarm.start(1)
        await swarm.start(2)
        await swarm.epoch(5)
        check_one_history(swarm, 5, f"after {delay} s")

    for number in range(10):
        delay = 1.8 + 0.012 * (10 * block + number)
        simulate(partial(scenario, delay=delay), data_parallel(epochs=1000), seed=number)


@pytest.mark.parametrize(("second", "third"), [(0.62, 0.43), (0.63, 0.27), (0.58, 0.43), (0.59, 0.38), (0.57, 0.14)])
def test_who_comes_when_another_follows_the_first_member_follows_it_too(second: float, third: float) -> None:
    """Nobody has made the state of epoch 0, and two were there before the third: one has decided, the other only
    goes on with that.
    """

    async def scenario(swarm: SimulatedSwarm) -> None:
        link = Link(1000 * MEGABIT, 1000 * MEGABIT, 0.02)
        await swarm.start(0, link=link)
        for number, pause in enumerate((second, third), 1):
            await swarm.network.clock.sleep(pause)
            await swarm.start(number, link=link)
        await swarm.until(lambda: all(peer.state.epoch >= 3 for peer in swarm.members), within=60)
        check_one_history(swarm, 4)

    simulate(scenario, data_parallel(epochs=100, target_batch=200))


def test_who_makes_up_the_quorum_has_its_time_to_train() -> None:
    """However long the others have been done with their steps by then."""

    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(3)
        await swarm.network.clock.sleep(60)
        assert not any(peer.state.epoch for peer in swarm.members)
        await swarm.start(3)
        await swarm.finish(within=120)
        assert len(set(samples(swarm))) == 1

    manifest = local_sgd(epochs=4)
    simulate(scenario, manifest.model_copy(update={"averaging": Averaging(quorum=4)}), seed=1)


def test_thirty_two_peers() -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(32, 0.05)
        await swarm.finish(within=120)
        assert all(samples(swarm))
        assert max(peer.participant.largest_group for peer in swarm.members) == 32
        check_nobody_was_charged(swarm)

    simulate(scenario, data_parallel(epochs=3, codec="int8", target_batch=8000), parameters=16_384)


@MODES
def test_a_slow_peer_contributes_by_its_speed(manifest_of: ManifestOf) -> None:
    speeds = [50.0, 100.0, 200.0, 500.0]

    async def scenario(swarm: SimulatedSwarm) -> None:
        for number, speed in enumerate(speeds):
            await swarm.start(number, speed=speed)
        await swarm.finish(within=200)
        counts = samples(swarm)
        if manifest_of is data_parallel:
            for count, speed in zip(counts, speeds, strict=True):
                assert 0.5 < (count / sum(counts)) / (speed / sum(speeds)) < 2
        else:  # as many steps as the others, or what it can do while they wait for it
            assert min(counts) > 0.5 * max(counts)

    simulate(scenario, manifest_of(epochs=20), seed=3)


@pytest.mark.parametrize("seed", range(3))
@MODES
def test_peers_that_find_each_other_late_become_one_swarm(manifest_of: ManifestOf, seed: int) -> None:
    """Everybody starts alone; for up to ten seconds nobody reaches anybody."""
    chance = random.Random(seed)

    async def scenario(swarm: SimulatedSwarm) -> None:
        swarm.network.partition(*([identity(number).peer_id] for number in range(4)))
        await swarm.start_all(4, chance.uniform(0, 1))
        await swarm.network.clock.sleep(chance.uniform(0.5, 10))
        swarm.network.heal()
        await swarm.until(lambda: max(p.participant.largest_group for p in swarm.members) == 4, within=60)
        await swarm.finish(within=120)
        assert all(samples(swarm))
        check_nobody_was_charged(swarm)

    simulate(scenario, manifest_of(epochs=60), seed)


# -- roles and links --------------------------------------------------------------------------------------------------


@MODES
def test_every_role_does_its_part(manifest_of: ManifestOf) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(2)
        aggregator = await swarm.start(2, role="aggregator")
        clients = [await swarm.start(3, client_mode=True), await swarm.start(4, client_mode=True)]
        monitor = await swarm.start(5, role="monitor")
        await swarm.finish(within=200)
        assert all(client.participant.samples_contributed for client in clients)
        assert aggregator.participant.samples_contributed == 0
        assert aggregator.participant.last_round is not None
        assert aggregator.participant.last_round[1].bytes_received > 0
        assert aggregator.participant.last_round[1].bytes_sent > 0
        assert monitor.state.epoch == 0
        assert len(monitor.participant.membership.roster) == 5
        check_nobody_was_charged(swarm)

    simulate(scenario, manifest_of(epochs=15), seed=7)


@pytest.mark.parametrize("seed", range(4))
def test_bad_links(seed: int) -> None:
    chance = random.Random(seed)

    async def scenario(swarm: SimulatedSwarm) -> None:
        for number in range(5):
            link = Link(
                upload_bytes_per_second=chance.uniform(1, 100) * MEGABIT,
                download_bytes_per_second=chance.uniform(1, 100) * MEGABIT,
                latency_seconds=chance.uniform(0.005, 0.1),
                jitter_seconds=chance.uniform(0, 0.1),
                loss=chance.choice([0, 0.002, 0.01]),
            )
            await swarm.start(number, speed=100.0, link=link)
        await swarm.finish(within=400)
        assert all(samples(swarm))
        check_nobody_was_charged(swarm)

    simulate(scenario, [data_parallel, local_sgd][seed % 2](epochs=12), seed)


@pytest.mark.parametrize("codec", ["none", "int8"])
def test_a_member_with_a_slow_link_contributes(codec: str) -> None:
    """5 Mbit/s among 100 Mbit/s, and an update of 600 kB."""

    async def scenario(swarm: SimulatedSwarm) -> None:
        for number in range(4):
            rate = (5 if number == 3 else 100) * MEGABIT
            await swarm.start(number, link=Link(rate, rate))
        await swarm.finish(within=300)
        counts = samples(swarm)
        assert min(counts) > 0.1 * sum(counts)
        check_nobody_was_charged(swarm)

    simulate(scenario, data_parallel(epochs=10, codec=codec, target_batch=4000), parameters=150_000)


def test_a_slow_link_does_not_slow_the_rounds_by_half() -> None:
    """1.25 Mbit/s among 25 Mbit/s, and an update of 4 MB: 26 seconds of that link, two or three of the others'."""

    def seconds(slow_rate: float) -> float:
        rounds: list[float] = []

        async def scenario(swarm: SimulatedSwarm) -> None:
            for number in range(4):
                rate = slow_rate if number == 3 else 25 * MEGABIT
                await swarm.start(number, link=Link(rate, rate))
            for epoch in range(2, 9):
                await swarm.until(lambda epoch=epoch: swarm.peers[0].state.epoch >= epoch, within=200)
                last = swarm.peers[0].participant.last_round
                assert last is not None
                rounds.append(last[1].duration_seconds)
            check_nobody_was_charged(swarm)

        simulate(scenario, data_parallel(target_batch=8000), parameters=1_000_000)
        return median(rounds[2:])  # the first ones share the parts out as if all were equal

    assert seconds(1.25 * MEGABIT) <= 1.5 * seconds(25 * MEGABIT)


# -- for long ---------------------------------------------------------------------------------------------------------


def test_a_long_run_takes_no_more_memory_and_leaves_no_tasks() -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(2, speed=1000.0)
        await swarm.epoch(50)
        tasks = len(asyncio.all_tasks())
        await swarm.epoch(300, within=2000)
        assert len(asyncio.all_tasks()) < tasks + 20
        assert all(swarm.network.open_connections(peer.peer) < 250 for peer in swarm.members)
        for peer in swarm.members:
            participant = peer.participant
            assert len(participant._conversation.sessions) <= 8
            assert len(participant._results._epochs) <= 8
            assert len(participant._heads.history) <= 16
            assert len(participant.contents._contents) <= 32
            assert len(participant._conversation.sessions._early) < 10
            assert len(participant._conversation.outbox._pending) <= 1
        check_nobody_was_charged(swarm)

    simulate(scenario, data_parallel(epochs=100_000, target_batch=200))


def test_the_same_seed_gives_the_same_trace() -> None:
    async def scenario(swarm: SimulatedSwarm) -> str:
        await swarm.start_all(4, 0.3)
        await swarm.epoch(4)
        await swarm.crash(swarm.peers[1])
        await swarm.finish(within=100)
        return swarm.network.trace()

    link = Link(jitter_seconds=0.02, loss=0.002)
    first, second = (simulate(scenario, data_parallel(epochs=10), 8, link) for _ in range(2))
    assert first == second
