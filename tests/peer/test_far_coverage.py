"""A peer of a stage that says to be far ahead, or far behind, holds up nobody where three serve it."""

import pytest

from peer.swarm.server import StageServer
from peer.swarm.stage import Stage
from protocols.swarm.messages import Coverage
from tests.peer.pipeline_swarm import PipelineSwarm, pipeline, simulate

FAR = 2**40


@pytest.mark.parametrize("epoch", [0, FAR], ids=["behind", "ahead"])
def test_who_says_to_be_elsewhere_stops_nobody(epoch: int) -> None:
    def lie(stage: Stage) -> Coverage:
        return Coverage(stage=stage.number, epoch=epoch, counted=())

    async def scenario(swarm: PipelineSwarm) -> None:
        for number in range(6):
            await swarm.start(number, stage=number % 2)
        liar: StageServer = swarm.peers[0].pipeline.server
        liar.coverage = lie  # type: ignore[method-assign, assignment]
        honest = [peer for number, peer in swarm.peers.items() if number > 0]
        at = max(peer.state.epoch for peer in honest)
        await swarm.until(lambda: min(peer.state.epoch for peer in honest) >= at + 5, within=200)

    simulate(scenario, pipeline(epochs=100_000, stages=2))
