"""What a member says of itself that cannot be leads nobody in a pipeline astray."""

from pathlib import Path

from peer.membership import HELLO_KIND
from protocols.identity import PeerId
from protocols.records import Serving
from tests.peer.attacks import Attacker
from tests.peer.pipeline_swarm import Peer, PipelineSwarm, pipeline, simulate
from tests.peer.simulated_swarm import identity

NO_STAGE = Serving(stage=63, rate=1.0, queue=0)


def word_of(attacker: Attacker) -> bytes:
    """That it serves that stage from the run's start."""
    return attacker.wire(attacker.roster_entry(b"\x07" * 32, serving=NO_STAGE), 0)


async def boast(attacker: Attacker, victim: Peer) -> None:
    await attacker.transport.connect(victim.transport.peer_id, victim.transport.addresses)
    assert not await attacker.ask(victim.transport.peer_id, HELLO_KIND, word_of(attacker))


def test_who_says_to_serve_a_stage_that_there_is_not_sets_nobody_back(tmp_path: Path) -> None:
    """A stage that has lost all its peers goes on where the others are, and evaluations come when they are due."""

    async def scenario(swarm: PipelineSwarm) -> None:
        for number in range(4):
            await swarm.start(number, stage=number % 2)
        await swarm.until(lambda: swarm.peers[0].state.epoch >= 5, within=60)
        who = identity(99)
        transport = swarm.network.join(who.peer_id)
        attacker = Attacker(who, transport, swarm.manifest.run_id)

        async def answer(_peer: PeerId, _wire: bytes) -> bytes:
            return word_of(attacker)

        await transport.serve_requests(HELLO_KIND, answer)
        for peer in swarm.running:
            await boast(attacker, peer)
        assert all(peer.pipeline._epoch_of_all() >= 5 for peer in swarm.running)
        await transport.clock.sleep(2)
        for number in (0, 2):
            await swarm.crash(swarm.peers[number])
        left = swarm.peers[1]
        at = left.state.epoch
        fresh = await swarm.start(4, stage=0)
        await boast(attacker, fresh)
        await swarm.until(lambda: left.state.epoch >= at + 5, within=120)
        assert fresh.state.epoch >= at
        await transport.close()

    simulate(scenario, pipeline(epochs=100_000, stages=2), disks=tmp_path)
