"""A run goes on from its peers' disks when all of them have been down at once."""

from pathlib import Path
from random import Random

import numpy as np
import pytest

from peer.models.stages import join
from tests.peer.pipeline_swarm import PipelineSwarm, pipeline, simulate
from tests.peer.test_pipeline import in_one_process


@pytest.mark.parametrize("delayed", [0, 1])
def test_stages_that_were_an_epoch_apart_when_all_went_down_go_on(delayed: int, tmp_path: Path) -> None:
    """One of them has to compute at the parameters of before, which are nowhere but on its disk."""

    async def scenario(swarm: PipelineSwarm) -> None:
        async def start(number: int) -> None:
            peer = await swarm.start(number, stage=number)
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


@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_lost_when_both_peers_of_a_stage_are_killed_and_come_back(seed: int, tmp_path: Path) -> None:
    """The first to come back has been away for epochs: it waits for the other, whose disk has the newest state."""
    manifest, random = pipeline(epochs=30), Random(seed)

    async def scenario(swarm: PipelineSwarm) -> np.ndarray:
        clock = swarm.network.clock
        for number in range(8):
            await swarm.start(number, stage=number % 4)
        stages = list(range(4))
        random.shuffle(stages)
        for stage in stages[:2]:
            epoch = min(peer.state.epoch for peer in swarm.running)
            first, second = swarm.peers[stage], swarm.peers[stage + 4]
            await swarm.crash(first)
            await swarm.until(lambda: second.state.epoch >= epoch + 2, within=60)  # noqa: B023
            await clock.sleep(random.random())
            assert not swarm.finished
            await swarm.crash(second)
            await swarm.start(first.number, stage=stage)
            await clock.sleep(random.uniform(1, 15))
            await swarm.start(second.number, stage=stage)
            await swarm.until(lambda: min(peer.state.epoch for peer in swarm.running) >= epoch + 3, within=120)  # noqa: B023
        await swarm.finish(within=600)
        return join(swarm.parameters())

    trained = simulate(scenario, manifest, seed, disks=tmp_path)
    np.testing.assert_allclose(trained, in_one_process(manifest)[-1].parameters, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stages", [1, 2, 4])
def test_peers_that_are_killed_in_one_moment_and_come_back_in_one_go_on_together(stages: int, tmp_path: Path) -> None:
    """Each has its state from its own disk alone, and no more of a say in what comes next than its fellows."""
    manifest = pipeline(epochs=20)

    async def scenario(swarm: PipelineSwarm) -> np.ndarray:
        for number in range(8):
            await swarm.start(number, stage=number % 4)
        await swarm.until(lambda: min(peer.state.epoch for peer in swarm.running) >= 5, within=60)
        victims = [peer for peer in swarm.running if peer.number % 4 < stages]
        for peer in victims:
            await swarm.crash(peer)
        for peer in victims:
            await swarm.start(peer.number, stage=peer.number % 4)
        await swarm.finish(within=120)
        return join(swarm.parameters())

    trained = simulate(scenario, manifest, disks=tmp_path)
    np.testing.assert_allclose(trained, in_one_process(manifest)[-1].parameters, rtol=1e-4, atol=1e-5)
