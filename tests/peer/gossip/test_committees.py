"""Runs with sampled committees: progress with few who train at a time, and with most who do not answer at all."""

import random
from typing import Any

import pytest

from dht.simulated_link import Link
from peer.gossip.participant import GossipParticipant
from protocols.manifest import Committee
from tests.peer.gossip.gossiping import gossip, simulate_gossip, start, start_all
from tests.peer.simulated_swarm import SimulatedSwarm, distance

NEAR = Link(latency_seconds=0.002)
SMALL = Committee(trainers=3, aggregators=2, fraction=0.6)


def rounds(epochs: int = 40, committee: Committee = SMALL, **training: Any) -> Any:
    return gossip(epochs=epochs, committee=committee, steps=4, **training)


def test_a_swarm_comes_to_the_end_with_one_state_though_few_train_at_a_time() -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        peers = await start_all(swarm, 12)
        await swarm.finish(within=120)
        assert distance(peers[0].state) < 0.5
        trained = [peer.participant.epochs_played for peer in peers]
        assert 40 * 2 <= sum(trained) <= 40 * 3 + 3
        assert sum(count > 0 for count in trained) >= 10, "they take turns"

    simulate_gossip(scenario, rounds(), link=NEAR)


def test_with_eight_of_ten_who_do_not_answer_the_others_go_on() -> None:
    """Their hellos are answered, so that they stay on the roster; nothing else is."""

    def mute(**given: Any) -> GossipParticipant:
        participant = GossipParticipant(**given)

        async def never(*_anything: Any) -> bytes:
            await participant._transport.clock.sleep(10_000)
            return b""

        participant._committees._answer_ping = never  # type: ignore[method-assign]
        participant._committees._serve = never  # type: ignore[method-assign,assignment]
        participant._committees.run = never  # type: ignore[method-assign,assignment]
        return participant

    async def scenario(swarm: SimulatedSwarm) -> None:
        awake = [await start(swarm, number) for number in range(4)]
        for number in range(4, 20):
            await start(swarm, number, make=mute)
        await swarm.until(lambda: max(peer.state.epoch for peer in awake) >= 15, within=240)
        assert all(peer.participant.epochs_played > 0 for peer in awake)
        assert all(len(peer.participant.membership.roster) == 19 for peer in awake)

    simulate_gossip(scenario, rounds(epochs=1000), link=NEAR)


@pytest.mark.usefixtures("every_chunk_in_a_frame_of_its_own")
def test_who_takes_a_model_and_does_not_read_it_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """It answers pings, and so it is in every other committee."""

    def unread(**given: Any) -> GossipParticipant:
        participant = GossipParticipant(**given)

        async def never(*_anything: Any) -> None:
            await participant._transport.clock.sleep(10_000)

        participant._committees._serve = never  # type: ignore[method-assign,assignment]
        participant._committees.run = never  # type: ignore[method-assign,assignment]
        return participant

    async def scenario(swarm: SimulatedSwarm) -> None:
        honest = await start_all(swarm, 8)
        await start(swarm, 99, make=unread)
        await swarm.until(lambda: max(peer.state.epoch for peer in honest) >= 60, within=90)
        assert sum(peer.participant._committees.counts.failed for peer in honest) > 0, "it was handed models"

    monkeypatch.setattr("dht.simulated_connection.WINDOW_BYTES", 2048)
    simulate_gossip(scenario, rounds(epochs=1000), link=NEAR)


def test_four_fifths_killed_at_once_stop_nothing_for_long() -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        peers = await start_all(swarm, 15)
        await swarm.until(lambda: max(peer.state.epoch for peer in peers) >= 10, within=60)
        for peer in random.Random(3).sample(peers, 12):
            await swarm.crash(peer)
        at = max(peer.state.epoch for peer in swarm.running)
        await swarm.until(lambda: max(peer.state.epoch for peer in swarm.running) >= at + 10, within=120)
        await swarm.finish(within=300)

    simulate_gossip(scenario, rounds(epochs=60), link=NEAR)


@pytest.mark.parametrize("seed", range(2))
def test_whole_committees_that_vanish_are_replaced(seed: int) -> None:
    """Whoever trains or aggregates is killed in mid-round, again and again."""

    async def scenario(swarm: SimulatedSwarm) -> None:
        peers = await start_all(swarm, 10)
        await swarm.until(lambda: max(peer.state.epoch for peer in peers) >= 3, within=60)
        for number in range(3):
            newest = max(peer.state.epoch for peer in swarm.running)
            busy = [peer for peer in swarm.running if peer.participant._committees._trained >= newest]
            for peer in busy:
                await swarm.crash(peer)
            for peer in busy:
                await start(swarm, 10 + 10 * number + peer.number)
            await swarm.epoch(newest + 3, within=120)
        await swarm.finish(within=300)

    simulate_gossip(scenario, rounds(epochs=40), seed=seed, link=NEAR)


def test_a_joiner_is_sampled_and_trains() -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        peers = await start_all(swarm, 5)
        await swarm.until(lambda: max(peer.state.epoch for peer in peers) >= 8, within=60)
        joiner = await start(swarm, 5)
        await swarm.until(lambda: joiner.participant.epochs_played > 2, within=60)

    simulate_gossip(scenario, rounds(epochs=1000), link=NEAR)


def test_models_that_nobody_should_send_are_refused() -> None:
    def boasting(**given: Any) -> GossipParticipant:
        participant = GossipParticipant(**given)
        host = participant._committees._host
        train = host.train

        async def more(number: int, model: Any) -> Any:
            made, _ = await train(number, model)
            return made, 10**9

        host.train = more  # type: ignore[method-assign]
        return participant

    async def scenario(swarm: SimulatedSwarm) -> None:
        peers = await start_all(swarm, 5)
        evil = await start(swarm, 5, make=boasting)
        await swarm.until(lambda: max(peer.state.epoch for peer in peers) >= 15, within=120)
        charged = {reason for peer in peers for (who, reason) in peer.rejections.by_peer if who == evil.peer}
        assert "unexpected" in charged
        assert all(who == evil.peer or reason == "busy" for p in peers for who, reason in p.rejections.by_peer)

    simulate_gossip(scenario, rounds(epochs=1000), link=NEAR)
