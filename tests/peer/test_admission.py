"""Whoever is not admitted takes no part, and costs those who are nothing."""

from protocols.manifest import Admission
from protocols.rejection import Reason
from tests.peer.simulated_swarm import SimulatedSwarm, data_parallel, identity, simulate


def test_who_is_not_on_the_list_is_in_no_round() -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        stranger = await swarm.start(3)
        await swarm.start_all(3)
        listed = [swarm.peers[number] for number in range(3)]
        await swarm.until(lambda: all(peer.state.epoch == 15 for peer in listed), within=120)
        assert len({peer.state.digest for peer in listed}) == 1
        for peer in listed:
            assert peer.participant.largest_group == 3
            assert peer.participant.membership.roster.get(stranger.peer) is None
            assert {who for who, reason in peer.rejections.by_peer if reason == Reason.NOT_ADMITTED} == {stranger.peer}

    admission = Admission(policy="allowlist", peers=tuple(identity(number).peer_id for number in range(3)))
    simulate(scenario, data_parallel(epochs=15).model_copy(update={"admission": admission}))
