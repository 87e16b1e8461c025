"""Members of a run with committees who say of themselves what is not so."""

import asyncio
from itertools import pairwise

import numpy as np
import pytest

from dht.simulated_link import Link
from peer.gossip.committees import Task
from peer.gossip.models import Encoded
from peer.gossip.participant import GossipParticipant
from protocols.codecs import codec
from protocols.gossip.committee import newest_round
from protocols.identity import PeerId
from protocols.records import RosterEntry
from tests.peer.gossip.gossiping import PARAMETERS, simulate_gossip, start, start_all
from tests.peer.gossip.test_committees import rounds
from tests.peer.simulated_swarm import SimulatedSwarm

NEAR = Link(latency_seconds=0.002)


def test_who_claims_to_be_at_the_end_ends_the_run_for_nobody() -> None:
    manifest = rounds(epochs=1000)

    class Boaster(GossipParticipant):
        def _entry(self) -> tuple[RosterEntry, int]:
            said, _ = super()._entry()
            return said.model_copy(update={"state_digest": b"\x07" * 32}), manifest.epochs

    async def scenario(swarm: SimulatedSwarm) -> None:
        peers = await start_all(swarm, 6)
        await swarm.until(lambda: max(peer.state.epoch for peer in peers) >= 5, within=60)
        await start(swarm, 99, make=Boaster)
        at = max(peer.state.epoch for peer in peers)
        await swarm.until(lambda: max(peer.state.epoch for peer in peers) >= at + 40, within=120)

    simulate_gossip(scenario, manifest, link=NEAR)


@pytest.mark.parametrize("task", ["train", "aggregate"])
def test_one_member_leads_nobody_past_rounds(task: Task) -> None:
    """It sends all others a well-formed model of a round far ahead, again and again."""

    async def scenario(swarm: SimulatedSwarm) -> None:
        peers = await start_all(swarm, 6)
        await swarm.until(lambda: max(peer.state.epoch for peer in peers) >= 5, within=60)
        evil, clock = await start(swarm, 99), peers[0].transport.clock
        await swarm.until(lambda: len(evil.participant.membership.roster) == 6, within=60)
        committees = evil.participant._committees
        assert committees is not None
        seen: list[tuple[float, int]] = []

        async def lead(victim: PeerId) -> None:
            model = Encoded.of(np.full(PARAMETERS, 7.0, np.float32), codec("none"))
            number = max(peer.state.epoch for peer in peers) + 30
            await committees._hand(victim, number, task, model, 10)

        async def lead_all() -> None:
            while True:
                async with asyncio.TaskGroup() as tasks:
                    for peer in peers:
                        tasks.create_task(lead(peer.peer))
                await clock.sleep(0.1)

        leading = asyncio.create_task(lead_all())
        for _ in range(100):
            await clock.sleep(0.1)
            seen.append((clock.monotonic(), max(peer.state.epoch for peer in peers)))
        leading.cancel()
        steps = [after - before for (_, before), (_, after) in pairwise(seen)]
        assert seen[-1][1] > seen[0][1] + 10, "the others go on"
        assert max(steps) <= 2, "a round takes training"

    simulate_gossip(scenario, rounds(epochs=100_000), link=NEAR)


@pytest.mark.parametrize(
    ("held", "aggregators", "newest"), [([3], 4, 3), ([9, 3, 2], 1, 9), ([9, 3, 2], 2, 3), ([9, 3, 3, 2], 4, 3)]
)
def test_a_round_is_reached_when_most_of_its_aggregators_hold_its_state(
    held: list[int], aggregators: int, newest: int
) -> None:
    assert newest_round(held, aggregators) == newest
