"""A run goes on from its peers' disks when all of them have been down at once."""

import asyncio
from pathlib import Path

import pytest

from tests.peer.pipeline_swarm import PipelineSwarm, pipeline, simulate


@pytest.mark.parametrize("delayed", [0, 1])
def test_stages_that_were_an_epoch_apart_when_all_went_down_go_on(delayed: int, tmp_path: Path) -> None:
    """One of them has to compute at the parameters of before, which are nowhere but on its disk."""

    async def scenario(swarm: PipelineSwarm) -> None:
        saving: list[asyncio.Task[None]] = []

        async def start(number: int) -> None:
            peer = await swarm.start(number, stage=number)
            saving.append(asyncio.create_task(peer.pipeline.keep_saving()))
            await swarm.until(lambda: peer.participant.joined, within=60)

        for number in range(2):
            await start(number)
        await swarm.until(lambda: swarm.peers[1].state.epoch == swarm.peers[0].state.epoch + 1 > 5, within=60)
        for peer in swarm.running:
            await swarm.crash(peer)
        epoch = swarm.peers[1].state.epoch
        for number in range(2):
            await start(number)
        assert [peer.state.epoch for peer in swarm.running] == [epoch - 1, epoch]
        await swarm.until(lambda: min(peer.state.epoch for peer in swarm.running) > epoch + 2, within=60)
        for task in saving:
            task.cancel()

    simulate(scenario, pipeline(epochs=1000, stages=2, delayed=delayed), disks=tmp_path)


def test_a_stage_goes_on_from_a_snapshot_that_is_ahead_of_the_others(tmp_path: Path) -> None:
    """Nobody has the parameters of before, at which the others would have it compute."""

    async def scenario(swarm: PipelineSwarm) -> None:
        for number in range(2):
            await swarm.start(number, stage=number)
        staying, last = swarm.peers.values()
        await swarm.until(lambda: last.state.epoch == staying.state.epoch + 1 > 3, within=60)
        await staying.pipeline._factory.save(1, last.state)
        await swarm.crash(last)
        epoch = staying.state.epoch
        await swarm.start(2, stage=1)
        await swarm.until(lambda: min(peer.state.epoch for peer in swarm.running) > epoch + 2, within=60)

    simulate(scenario, pipeline(epochs=1000, stages=2), disks=tmp_path)
