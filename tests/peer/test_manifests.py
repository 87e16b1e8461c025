"""Asking a simulated swarm for its manifest."""

from peer.manifests import fetch_manifest
from protocols.identity import Identity
from tests.peer.simulated_swarm import data_parallel, simulate

MANIFEST = data_parallel(epochs=20)
NEWCOMER = Identity.from_seed(b"n" * 32).peer_id


async def members_known_to_a_newcomer(swarm):
    await swarm.start_all(3)
    transport = swarm.network.join(NEWCOMER)
    for member in swarm.running:
        transport.remember(member.peer, member.transport.addresses)
    return transport, [member.peer for member in swarm.running]


def test_members_that_are_stopped_do_not_delay_a_newcomer():
    async def scenario(swarm):
        transport, members = await members_known_to_a_newcomer(swarm)
        swarm.network.partition(members[:2], [*members[2:], NEWCOMER])
        began = swarm.network.clock.monotonic()
        assert await fetch_manifest(transport, MANIFEST.run_id, members) == MANIFEST
        assert swarm.network.clock.monotonic() - began < 1

    simulate(scenario, MANIFEST)


def test_nobody_gives_the_manifest_of_another_run():
    async def scenario(swarm):
        transport, members = await members_known_to_a_newcomer(swarm)
        assert await fetch_manifest(transport, "other-" + "a" * 26, members) is None
        assert await fetch_manifest(transport, MANIFEST.run_id, []) is None

    simulate(scenario, MANIFEST)
