"""Nobody keeps the places of an aggregator from those who have models for it."""

import asyncio
from contextlib import suppress

from dht.interfaces import Frame, TransportError
from dht.simulated_link import Link
from peer.gossip.committees import MODEL_KIND
from protocols.gossip.messages import CommitteeModel
from protocols.identity import PeerId
from protocols.round.parts import Grid
from tests.peer.attacks import Attacker
from tests.peer.gossip.gossiping import PARAMETERS, simulate_gossip, start_all
from tests.peer.gossip.test_committees import rounds
from tests.peer.simulated_swarm import SimulatedSwarm, identity

NEAR = Link(latency_seconds=0.002)


def test_a_stranger_that_announces_models_and_sends_none_holds_up_nobody() -> None:
    """On half of the streams that it may open to each."""

    async def scenario(swarm: SimulatedSwarm) -> None:
        peers = await start_all(swarm, 8)
        who = identity(99)
        transport = swarm.network.join(who.peer_id)
        attacker = Attacker(who, transport, swarm.manifest.run_id)
        for peer in peers:
            await transport.connect(peer.peer, peer.transport.addresses)

        def newest() -> int:
            return max(peer.state.epoch for peer in peers)

        async def hold(victim: PeerId) -> None:
            chunks = (b"\x07" * 32,) * Grid(PARAMETERS).chunks
            while True:
                with suppress(TransportError):
                    body = CommitteeModel(to=victim, task="aggregate", samples=0, chunks=chunks)
                    stream = await transport.open_stream(victim, MODEL_KIND)
                    await stream.send(Frame(attacker.wire(body, newest() + 50)))
                    await stream.receive()
                await transport.clock.sleep(0.1)

        await swarm.until(lambda: newest() >= 5, within=60)
        async with asyncio.TaskGroup() as tasks:
            holding = [tasks.create_task(hold(peer.peer)) for peer in peers for _ in range(32)]
            await swarm.until(lambda: newest() >= 60, within=60)
            for task in holding:
                task.cancel()
        await transport.close()

    simulate_gossip(scenario, rounds(epochs=100_000), link=NEAR)
