"""The whole model out of a pipeline's stages: at one epoch, and with a sentence where it cannot be had."""

import numpy as np
import pytest

from peer.errors import PeerError
from peer.models.stages import join
from peer.observer import Observer
from peer.rejections import Rejections
from peer.swarm.gathering import Whole
from protocols.identity import Identity
from protocols.signed import Signer
from tests.peer.pipeline_swarm import PipelineSwarm, pipeline, simulate
from tests.peer.test_pipeline import in_one_process

OBSERVER = Identity.from_seed(b"o" * 32)


def observer_of(swarm: PipelineSwarm) -> Observer:
    transport = swarm.network.join(OBSERVER.peer_id, client_mode=True)
    signer = Signer(OBSERVER, swarm.manifest.run_id, 0)
    return Observer(transport, swarm.network.records(OBSERVER.peer_id), signer, None, Rejections())


def test_members_and_observers_take_the_same_model_while_it_trains() -> None:
    """Whatever epochs the stages are at by then: all of it is of one epoch."""
    manifest = pipeline(epochs=30, stages=3)

    async def scenario(swarm: PipelineSwarm) -> list[Whole]:
        for number in range(5):
            await swarm.start(number, stage=number % 3)
        trainer = await swarm.start(5, role="trainer")
        await swarm.until(lambda: swarm.peers[0].state.epoch >= 3, within=100)
        taken = []
        for gatherer in (swarm.peers[0].pipeline, trainer.pipeline, swarm.peers[2].pipeline, observer_of(swarm)):
            taken.append(await gatherer.gather())
            await swarm.network.clock.sleep(0.37)
        await swarm.finish(within=300)
        last = await swarm.peers[1].pipeline.gather()
        assert np.array_equal(last.state.parameters, join(swarm.parameters()))
        assert len(last.signers) == 5
        return [*taken, last]

    states = in_one_process(manifest)
    taken = simulate(scenario, manifest)
    assert taken[-1].state.epoch == 30
    for whole in taken:
        assert whole.state.run == manifest.run_id
        np.testing.assert_allclose(whole.state.parameters, states[whole.state.epoch].parameters, rtol=1e-4, atol=1e-5)


def test_a_stage_that_nobody_serves_is_told() -> None:
    manifest = pipeline(epochs=1000, stages=2)

    async def scenario(swarm: PipelineSwarm) -> None:
        await swarm.start(0, stage=0)
        other = await swarm.start(1, stage=1)
        await swarm.until(lambda: other.state.epoch >= 2, within=100)
        await swarm.crash(other)
        join_it = f"peer join --run-id {manifest.run_id} --stage 1"
        sentence = f"stage 1 of 2 cannot be had, for .*; somebody has to serve it: {join_it}"
        for gatherer in (swarm.peers[0].pipeline, observer_of(swarm)):
            with pytest.raises(PeerError, match=sentence):
                await gatherer.gather()

    simulate(scenario, manifest)


def test_one_liar_among_the_peers_of_a_stage_changes_nothing() -> None:
    """It names and serves states that others do not have."""
    manifest = pipeline(epochs=8, stages=2)

    async def scenario(swarm: PipelineSwarm) -> None:
        for number in range(4):
            await swarm.start(number, stage=0 if number == 0 else 1)
        await swarm.finish(within=300)
        liar = swarm.peers[1].participant
        for epoch in list(liar.history):
            liar._heads.history[epoch] = bytes(32)
        whole = await swarm.peers[0].pipeline.gather()
        assert np.array_equal(whole.state.parameters, join(swarm.parameters()))
        assert swarm.peers[1].transport.peer_id not in whole.signers

    simulate(scenario, manifest)
