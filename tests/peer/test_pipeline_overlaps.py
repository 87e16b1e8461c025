"""Of what a stage has counted it throws nothing away, as long as those who have counted it live."""

import pytest

from dht.simulated_link import Link
from peer.swarm.stage import Stage
from tests.peer.pipeline_swarm import Peer, PipelineSwarm, pipeline, simulate

FAR = Link(latency_seconds=0.1)
"""Epochs of seconds, in which a microbatch waits long enough to be taken for lost."""
PEERS = 6


@pytest.fixture
def discarded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The epochs of which somebody has thrown away what it had counted, for another has counted it, too."""
    epochs: list[int] = []
    discard = Stage.discard

    async def noted(self: Stage, epoch: int) -> None:
        epochs.append(epoch)
        await discard(self, epoch)

    monkeypatch.setattr(Stage, "discard", noted)
    return epochs


async def start(swarm: PipelineSwarm) -> None:
    for number in range(PEERS):
        await swarm.start(number, stage=number % swarm.manifest.training.stages)
    await swarm.until(lambda: all(peer.state.epoch for peer in swarm.running), within=60)


@pytest.mark.parametrize(("seed", "apart_seconds"), [(0, 0.3), (1, 0.3), (2, 0.0)])
def test_what_a_banned_peer_has_counted_is_all_that_is_lost_with_it(
    seed: int, apart_seconds: float, discarded: list[int]
) -> None:
    """It goes on to say that it has counted it, and the others ban it one after the other."""
    manifest = pipeline(epochs=6, stages=2, batch_size=8, target_batch=512)

    async def scenario(swarm: PipelineSwarm) -> None:
        await start(swarm)
        banned, *honest = swarm.running
        await swarm.until(lambda: counted(banned) >= 4, within=60)
        for peer in honest:
            peer.participant.company.ban(banned.transport.peer_id, "a test")
            await swarm.network.clock.sleep(apart_seconds)
        await swarm.until(lambda: all(peer.state.epoch == manifest.epochs for peer in honest), within=300)

    def counted(peer: Peer) -> int:
        stage = peer.pipeline.server.stage
        return sum(mask.bit_count() for mask in stage.open_epochs.values()) if stage is not None else 0

    simulate(scenario, manifest, seed, link=FAR)
    assert not discarded, discarded
