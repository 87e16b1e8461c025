"""A pipeline is evaluated as the whole model would be, at one epoch, whoever takes it on."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dht.border import Border
from dht.simulated import SimulatedNetwork, run_simulation
from peer.data.registry import open_dataset
from peer.models.stages import stage_shape, whole_model
from peer.signal import Signal
from peer.swarm.compute import Backward
from peer.swarm.factory import StageFactory
from peer.swarm.kept_passes import Passage
from peer.swarm.microbatch import Tensor as Encoded
from peer.swarm.server import StageServer
from peer.swarm.stage import Stage
from protocols.manifest import Evaluation, Manifest, Pipeline
from protocols.signed import Signer
from protocols.swarm.messages import Delivery, Work, WorkTask
from protocols.vectors import Vector
from tests.peer.pipeline_swarm import PipelineSwarm, pipeline, simulate
from tests.peer.simulated_swarm import identity
from tests.peer.test_pipeline import in_one_process


def evaluated(epochs: int, every: int, samples: int = 64, **training: object) -> Manifest:
    evaluation = Evaluation(every_epochs=every, samples=samples)
    return pipeline(epochs=epochs, stages=2, **training).model_copy(update={"evaluation": evaluation})


@dataclass
class Seen:
    """Epoch → metrics, of all peers."""

    swarm: PipelineSwarm

    def __post_init__(self) -> None:
        self.metrics: dict[int, dict[str, float]] = {}
        self.by: dict[int, set[int]] = {}

    def look(self) -> "Seen":
        for peer in self.swarm.peers.values():
            if (epoch := peer.participant.evaluated_epoch) is not None:
                self.metrics[epoch] = peer.participant.evaluation
                self.by.setdefault(epoch, set()).add(peer.number)
        return self


@pytest.mark.parametrize("delayed", [0, 1])
def test_the_metrics_are_those_of_the_whole_model_at_that_epoch(delayed: int) -> None:
    manifest = evaluated(epochs=12, every=4, delayed=delayed)

    async def scenario(swarm: PipelineSwarm) -> Seen:
        for number in range(4):
            await swarm.start(number, stage=number % 2)
        seen = Seen(swarm)
        await swarm.until(lambda: {4, 8, 12} <= seen.look().metrics.keys(), within=200)
        return seen

    seen: Seen = simulate(scenario, manifest)
    assert seen.metrics.keys() == {4, 8, 12}
    assert all(len(numbers) == 1 for numbers in seen.by.values())
    states, model = in_one_process(manifest), whole_model(manifest)
    for epoch, metrics in seen.metrics.items():
        model.load(states[epoch].parameters)
        assert metrics == open_dataset(manifest.data).evaluate(model, 64)


def test_who_only_trains_evaluates_too() -> None:
    async def scenario(swarm: PipelineSwarm) -> None:
        for number in range(2):
            await swarm.start(number, stage=number, role="stage")
        trainer = await swarm.start(2, role="trainer")
        await swarm.until(lambda: trainer.participant.evaluated_epoch == 6, within=200)
        assert trainer.participant.evaluation["accuracy"] > 0

    simulate(scenario, evaluated(epochs=6, every=100))


def test_what_cannot_be_evaluated_in_time_is_given_up_and_training_goes_on() -> None:
    """So many samples take longer than until the next evaluation is due."""

    async def scenario(swarm: PipelineSwarm) -> Seen:
        for number in range(2):
            await swarm.start(number, stage=number)
        seen = Seen(swarm)
        await swarm.until(lambda: 20 in seen.look().metrics, within=400)
        return seen

    manifest = evaluated(epochs=20, every=1, samples=4096)
    seen: Seen = simulate(scenario, manifest)
    assert len(seen.metrics) < 20


def test_a_peer_that_dies_in_an_evaluation_is_replaced_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate_batch = Stage.evaluate_batch
    stuck: list[Stage] = []
    began = Signal()

    async def first_gets_stuck(self: Stage, epoch: int, inputs: Tensor) -> Tensor:
        if self.number == 1 and (not stuck or stuck[0] is self):
            stuck.append(self)
            began.notify()
            await asyncio.Event().wait()
        return await evaluate_batch(self, epoch, inputs)

    monkeypatch.setattr(Stage, "evaluate_batch", first_gets_stuck)

    async def scenario(swarm: PipelineSwarm) -> None:
        for number in range(4):
            await swarm.start(number, stage=number % 2, role="stage")
        trainer = await swarm.start(4, role="trainer")
        await began.wait()
        [victim] = [peer for peer in swarm.running if peer.pipeline.server.stage is stuck[0]]
        await swarm.crash(victim)
        await swarm.until(lambda: trainer.participant.evaluated_epoch == 3, within=100)

    simulate(scenario, evaluated(epochs=3, every=100))


def test_who_fails_in_an_evaluation_of_its_own_does_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a mistake of ours that was not foreseen; nobody has cancelled it."""
    evaluate_batch = Stage.evaluate_batch
    failed: list[int] = []

    async def fails_at_first(self: Stage, epoch: int, inputs: Tensor) -> Tensor:
        if self.number == 0 and not failed:
            failed.append(epoch)
            raise ArithmeticError("made up")
        return await evaluate_batch(self, epoch, inputs)

    monkeypatch.setattr(Stage, "evaluate_batch", fails_at_first)

    async def scenario(swarm: PipelineSwarm) -> None:
        evaluator = await swarm.start(0, stage=0)
        await swarm.start(1, stage=1, role="stage")
        await swarm.until(lambda: evaluator.participant.evaluated_epoch == 4, within=100)
        assert failed == [2]

    simulate(scenario, evaluated(epochs=4, every=2))


class Recording:
    """Computes nothing, and writes down what it was asked for."""

    keeps = False

    def has_kept(self, _passage: Passage) -> bool:
        return False

    def __init__(self) -> None:
        self.asked: list[str] = []

    def forward(self, parameters: Vector, inputs: Tensor, _passage: Passage | None = None) -> Tensor:
        self.asked.append(f"{len(inputs)} forward at {parameters[0]:.0f}")
        return torch.zeros(len(inputs), 16)

    def backward(
        self, parameters: Vector, inputs: Tensor | None, grad_outputs: Tensor, _passage: Passage | None = None
    ) -> Backward:
        assert inputs is not None
        self.asked.append(f"{len(inputs)} backward at {parameters[0]:.0f}")
        return Backward(None, np.zeros(1, np.float32), None, finite=True)

    backward_from_loss = backward


def test_training_goes_before_what_is_evaluated() -> None:
    """Of the works that wait those to evaluate come last, one by one; others of one kind go together."""
    manifest = evaluated(epochs=100, every=5)

    async def main(network: SimulatedNetwork) -> list[str]:
        assert isinstance(manifest.training, Pipeline)
        me = identity(0)
        transport = network.join(me.peer_id)
        signer, border = Signer(me, manifest.run_id, 0), Border(me.peer_id, transport.clock, print)
        server = StageServer(transport, signer, manifest.training, border, lambda _peer: None)
        compute = Recording()
        stage = Stage(manifest, 0, compute, transport.clock, transport.in_thread)
        shape = stage_shape(manifest, 0)
        for epoch in range(5, 8):
            await stage.begin(replace(shape, epoch=epoch, parameters=np.full(shape.parameter_count, epoch, np.float32)))
        server.take(stage, StageFactory(manifest, None, transport.clock).accepted(0))
        samples, gradients = (Encoded.of(np.zeros((8, size), np.float32), "none") for size in (64, 16))

        def work(task: WorkTask, epoch: int) -> Coroutine[Any, Any, Any]:
            tensors = [samples, gradients] if task == "backward" else [samples]
            other = gradients.header if task == "backward" else None
            order = Work(task=task, epoch=epoch, stage=0, microbatch=0, inputs=samples.header, other=other)
            return server.handle(me.peer_id, Delivery(work=order), [tensor.payload for tensor in tensors])

        orders: list[tuple[WorkTask, int]] = [("evaluate", 5), ("evaluate", 5), ("forward", 7), ("forward", 7)]
        async with asyncio.TaskGroup() as tasks:
            done = [tasks.create_task(work(*order)) for order in [*orders, ("backward", 7)]]
            await asyncio.sleep(0.1)
            serving = tasks.create_task(server.run())
            await asyncio.wait(done)
            serving.cancel()
        assert [task.result()[0].outcome for task in done] == ["done"] * 5
        late, _ = await work("evaluate", 4)
        early, _ = await work("evaluate", 10)
        assert (late.outcome, early.outcome) == ("late", "early")
        return compute.asked

    assert run_simulation(main, 0) == ["8 backward at 7", "16 forward at 7", "8 forward at 5", "8 forward at 5"]
