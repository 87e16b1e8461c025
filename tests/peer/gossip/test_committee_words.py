"""Members of a run with committees who say of themselves what is not so."""

import pytest

from dht.simulated_link import Link
from peer.gossip.participant import GossipParticipant
from protocols.gossip.committee import newest_round
from protocols.records import RosterEntry
from tests.peer.gossip.gossiping import simulate_gossip, start, start_all
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


@pytest.mark.parametrize(
    ("held", "aggregators", "newest"), [([3], 4, 3), ([9, 3, 2], 1, 9), ([9, 3, 2], 2, 3), ([9, 3, 3, 2], 4, 3)]
)
def test_a_round_is_reached_when_most_of_its_aggregators_hold_its_state(
    held: list[int], aggregators: int, newest: int
) -> None:
    assert newest_round(held, aggregators) == newest
