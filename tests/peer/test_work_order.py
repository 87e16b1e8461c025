"""Backward passes come first, and nobody waits for ever because of that."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from dht.border import Border
from dht.simulated import SimulatedNetwork, run_simulation
from peer.models.stages import stage_shape
from peer.swarm.factory import StageFactory
from peer.swarm.microbatch import Tensor
from peer.swarm.server import PASSED_BY, QUEUE_LIMIT, StageServer
from peer.swarm.stage import Stage
from protocols.identity import PeerId
from protocols.manifest import Pipeline
from protocols.signed import Signer
from protocols.swarm.messages import Delivery, Work, WorkTask
from tests.peer.pipeline_swarm import pipeline
from tests.peer.simulated_swarm import identity
from tests.peer.test_pipeline_evaluation import Recording

MANIFEST = pipeline(stages=2)
SAMPLES, GRADIENTS = (Tensor.of(np.zeros((8, size), np.float32), "none") for size in (64, 16))


def test_a_trainer_that_sends_one_backward_pass_after_the_other_keeps_no_forward_pass_waiting() -> None:
    async def main(network: SimulatedNetwork) -> list[str]:
        assert isinstance(MANIFEST.training, Pipeline)
        me = identity(0)
        transport = network.join(me.peer_id)
        signer, border = Signer(me, MANIFEST.run_id, 0), Border(me.peer_id, transport.clock, print)
        server = StageServer(transport, signer, MANIFEST.training, border, lambda _peer: None)
        compute, shape = Recording(), stage_shape(MANIFEST, 0)

        async def in_thread(call: Callable[[], Any]) -> Any:
            await transport.clock.sleep(0.1)
            return call()

        stage = Stage(MANIFEST, 0, compute, transport.clock, in_thread)
        await stage.begin(replace(shape, parameters=np.zeros(shape.parameter_count, np.float32)))
        server.take(stage, StageFactory(MANIFEST, None, transport.clock).accepted(0))

        async def send(trainer: str, task: WorkTask, times: int) -> None:
            tensors = [SAMPLES, GRADIENTS] if task == "backward" else [SAMPLES]
            other = GRADIENTS.header if task == "backward" else None
            work = Work(task=task, epoch=0, stage=0, microbatch=0, inputs=SAMPLES.header, other=other)
            for _ in range(times):
                answer, _ = await server.handle(
                    PeerId(trainer), Delivery(work=work), [tensor.payload for tensor in tensors]
                )
                assert answer.outcome == "done"

        async with asyncio.TaskGroup() as tasks:
            serving = tasks.create_task(server.run())
            async with asyncio.TaskGroup() as sending:
                for _ in range(2):  # so that one always waits
                    sending.create_task(send("hostile", "backward", 2 * PASSED_BY))
                sending.create_task(send("honest", "forward", 1))
            serving.cancel()
        return compute.asked

    assert run_simulation(main, 0).index("8 forward at 0") <= PASSED_BY + QUEUE_LIMIT
