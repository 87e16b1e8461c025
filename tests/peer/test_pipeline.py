"""A pipeline trains what one process would train, whatever becomes of its peers."""

from random import Random

import numpy as np
import pytest

from peer.data.registry import open_dataset
from peer.models.stages import join, stage_state, whole_model
from protocols.manifest import Manifest, Pipeline
from protocols.optimizers import make_optimizer
from protocols.sampling import microbatch_indices
from protocols.state import ModelState, advance
from tests.peer.pipeline_swarm import PipelineSwarm, pipeline, simulate


def in_one_process(manifest: Manifest) -> list[ModelState]:
    """The states of the whole model, epoch after epoch, trained on the same batches."""
    assert isinstance(manifest.training, Pipeline)
    training, dataset, model = manifest.training, open_dataset(manifest.data), whole_model(manifest)
    stages = [stage_state(manifest, stage) for stage in range(training.stages)]
    slots = {name: join([stage.slots[name] for stage in stages]) for name in stages[0].slots}
    states = [ModelState(manifest.run_id, 0, join([stage.parameters for stage in stages]), slots)]
    optimizer = make_optimizer(training.optimizer, manifest.epochs)
    for epoch in range(manifest.epochs):
        model.load(states[-1].parameters)
        total = np.zeros(model.parameter_count, np.float32)
        for number in range(training.microbatches):
            indices = microbatch_indices(manifest.run_id, epoch, number, training.batch_size, dataset.train_size)
            inputs, targets = dataset.batch(indices)
            model.clear_gradient()
            dataset.loss(model(inputs), targets).backward()
            total += model.gradient.numpy()
        states.append(advance(states[-1], total / np.float32(training.microbatches), optimizer))
    return states


def test_a_pipeline_trains_what_one_process_trains() -> None:
    manifest = pipeline(epochs=20)

    async def scenario(swarm: PipelineSwarm) -> np.ndarray:
        for number in range(8):
            await swarm.start(number, stage=number % 4)
        await swarm.finish(within=600)
        return join(swarm.parameters())

    trained = simulate(scenario, manifest)
    expected = in_one_process(manifest)[-1].parameters
    np.testing.assert_allclose(trained, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_no_microbatch_is_lost_or_counted_twice_whoever_is_killed(seed: int) -> None:
    """Every few seconds one is killed with all that it has counted, and comes back with nothing."""
    manifest, random = pipeline(epochs=20), Random(seed)

    async def scenario(swarm: PipelineSwarm) -> np.ndarray:
        for number in range(8):
            await swarm.start(number, stage=number % 4)
        await swarm.until(lambda: any(peer.state.epoch for peer in swarm.running), within=60)
        kills = 0
        while not swarm.finished:
            victim = random.choice(swarm.running)
            await swarm.crash(victim)
            await swarm.network.clock.sleep(random.uniform(0.5, 3.0))
            await swarm.start(victim.number, stage=victim.number % 4)
            kills += 1
            await swarm.network.clock.sleep(random.uniform(1.0, 4.0))
            assert swarm.network.clock.monotonic() < 600, str(swarm)
        assert kills >= 5
        await swarm.finish(within=60)
        return join(swarm.parameters())

    trained = simulate(scenario, manifest, seed)
    np.testing.assert_allclose(trained, in_one_process(manifest)[-1].parameters, rtol=1e-4, atol=1e-5)
