"""A pipeline trains what one process would train, whatever becomes of its peers."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np
import pytest

from peer.data.registry import open_dataset
from peer.models.stages import join, stage_state, whole_model
from peer.swarm.gradients import Gradients
from peer.swarm.stage import Stage
from protocols.identity import PeerId
from protocols.manifest import Manifest, Pipeline
from protocols.optimizers import make_optimizer
from protocols.sampling import microbatch_indices
from protocols.state import ModelState, advance
from protocols.swarm.coverage import numbers
from tests.peer.pipeline_swarm import PipelineSwarm, pipeline, simulate


def in_one_process(manifest: Manifest, files: Sequence[Path] = ()) -> list[ModelState]:
    """The states of the whole model, epoch after epoch, trained on the same batches."""
    assert isinstance(manifest.training, Pipeline)
    training, dataset, model = manifest.training, open_dataset(manifest.data, files), whole_model(manifest)
    stages = [stage_state(manifest, stage) for stage in range(training.stages)]
    slots = {name: join([stage.slots[name] for stage in stages]) for name in stages[0].slots}
    states = [ModelState(manifest.run_id, 0, join([stage.parameters for stage in stages]), slots)]
    optimizer = make_optimizer(training.optimizer, manifest.epochs)
    for epoch in range(manifest.epochs):
        model.load(states[max(0, epoch - training.delayed)].parameters)
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


def test_delayed_updates_step_at_the_gradients_of_the_parameters_before() -> None:
    """With `delayed` an epoch begins while the one before is averaged, at the parameters that were there then."""
    manifest = pipeline(epochs=12, delayed=1)

    async def scenario(swarm: PipelineSwarm) -> np.ndarray:
        for number in range(8):
            await swarm.start(number, stage=number % 4)
        await swarm.finish(within=600)
        return join(swarm.parameters())

    expected = in_one_process(manifest)[-1].parameters
    np.testing.assert_allclose(simulate(scenario, manifest), expected, rtol=1e-4, atol=1e-5)


def test_a_stage_that_lost_all_its_peers_goes_on_from_a_snapshot_that_others_keep(tmp_path: Path) -> None:
    manifest = pipeline(epochs=100)

    async def scenario(swarm: PipelineSwarm) -> None:
        for number in range(8):
            await swarm.start(number, stage=number % 4)
        await swarm.until(lambda: any(tmp_path.glob("*/stage-2/epoch-*")) and kept_by_others(swarm, 2), within=200)
        for number in (2, 6):
            shutil.rmtree(tmp_path / swarm.peers[number].transport.peer_id)
            await swarm.crash(swarm.peers[number])
        await swarm.network.clock.sleep(10)
        epoch = max(peer.state.epoch for peer in swarm.running)
        await swarm.start(8, stage=2)
        await swarm.until(lambda: min(peer.state.epoch for peer in swarm.running) > epoch + 2, within=60)

    def kept_by_others(swarm: PipelineSwarm, stage: int) -> bool:
        others = [peer for peer in swarm.running if peer.stage != stage]
        return any(list((tmp_path / peer.transport.peer_id / f"stage-{stage}").glob("epoch-*")) for peer in others)

    simulate(scenario, manifest, disks=tmp_path)


def test_who_has_counted_the_same_microbatch_as_another_does_its_own_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a trainer that was thought dead goes on with what was given to another."""
    manifest = pipeline(epochs=6)
    made: dict[tuple[int, int, int], np.ndarray] = {}
    offer = Gradients.offer

    def remembered(self: Gradients, epoch: int, microbatch: int, trainer: PeerId, gradient: np.ndarray) -> None:
        made[id(self), epoch, microbatch] = gradient.copy()
        offer(self, epoch, microbatch, trainer, gradient)

    monkeypatch.setattr(Gradients, "offer", remembered)

    async def scenario(swarm: PipelineSwarm) -> np.ndarray:
        for number in range(8):
            await swarm.start(number, stage=number % 4)
        first, second = (swarm.peers[number].pipeline.server for number in (1, 5))
        forced: set[int] = set()
        while not swarm.finished:
            for giver, taker in ((first.stage, second.stage), (second.stage, first.stage)):
                if giver is not None and giver.epoch not in forced and await count_again(giver, taker):
                    forced.add(giver.epoch)
            await swarm.network.clock.sleep(0.3)
            assert swarm.network.clock.monotonic() < 600, str(swarm)
        assert len(forced) > 1
        await swarm.finish(within=60)
        return join(swarm.parameters())

    async def count_again(giver: Stage, taker: Stage | None) -> bool:
        """Has `taker` count what `giver` has counted already."""
        if taker is None or giver.epoch != taker.epoch:
            return False
        counted, known = (stage.open_epochs.get(stage.epoch, 0) for stage in (giver, taker))
        number = next(numbers(counted & ~known), None)
        if number is None:
            return False
        gradient = made[id(giver._gradients), giver.epoch, number]
        taker._gradients.offer(taker.epoch, number, PeerId("another"), gradient)
        await taker.count(taker.epoch, 1 << number, PeerId("another"))
        return True

    expected = in_one_process(manifest)[-1].parameters
    np.testing.assert_allclose(simulate(scenario, manifest), expected, rtol=1e-4, atol=1e-5)
