"""A stage's peer computes backward passes first, lets nobody wait for ever because of that, and waits for nobody."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dht.border import Border
from dht.interfaces import Frame, Stream
from dht.simulated import SimulatedNetwork, run_simulation
from peer.models.stages import stage_shape
from peer.swarm.factory import StageFactory
from peer.swarm.microbatch import Tensor
from peer.swarm.server import PASSED_BY, QUEUE_LIMIT, TAKE_SECONDS, StageServer
from peer.swarm.stage import Stage
from protocols.identity import PeerId
from protocols.manifest import Pipeline
from protocols.rejection import Rejected
from protocols.signed import Signer
from protocols.swarm.messages import Delivery, Work, WorkTask
from tests.peer.pipeline_swarm import pipeline
from tests.peer.simulated_swarm import identity
from tests.peer.test_pipeline_evaluation import Recording

MANIFEST = pipeline(stages=2)
SAMPLES, GRADIENTS = (Tensor.of(np.zeros((8, size), np.float32), "none") for size in (64, 16))


async def serving(network: SimulatedNetwork) -> tuple[StageServer, Recording]:
    """The first stage, where each work takes a tenth of a second."""
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
    return server, compute


def work(task: WorkTask) -> Work:
    other = GRADIENTS.header if task == "backward" else None
    return Work(task=task, epoch=0, stage=0, microbatch=0, inputs=SAMPLES.header, other=other)


def test_a_trainer_that_sends_one_backward_pass_after_the_other_keeps_no_forward_pass_waiting() -> None:
    async def main(network: SimulatedNetwork) -> list[str]:
        server, compute = await serving(network)

        async def send(trainer: str, task: WorkTask, times: int) -> None:
            payloads = [SAMPLES.payload, GRADIENTS.payload] if task == "backward" else [SAMPLES.payload]
            for _ in range(times):
                answer, _ = await server.handle(PeerId(trainer), Delivery(work=work(task)), payloads)
                assert answer.outcome == "done"

        async with asyncio.TaskGroup() as tasks:
            computing = tasks.create_task(server.run())
            async with asyncio.TaskGroup() as sending:
                for _ in range(2):  # so that one always waits
                    sending.create_task(send("hostile", "backward", 2 * PASSED_BY))
                sending.create_task(send("honest", "forward", 1))
            computing.cancel()
        return compute.asked

    assert run_simulation(main, 0).index("8 forward at 0") <= PASSED_BY + QUEUE_LIMIT


class Untaken(Stream):
    """A work comes on it, and its answer is never taken."""

    peer = PeerId("trainer")

    async def receive(self) -> Frame | None:
        return Frame(Delivery(work=work("forward")).to_bytes(), SAMPLES.payload)

    async def send(self, frame: Frame) -> None:
        await asyncio.Event().wait()

    async def close(self) -> None:
        raise NotImplementedError

    def abort(self) -> None:
        raise NotImplementedError


def test_an_answer_that_is_not_taken_is_not_kept_for_long() -> None:
    async def main(network: SimulatedNetwork) -> None:
        server, _ = await serving(network)
        async with asyncio.timeout(2 * TAKE_SECONDS), asyncio.TaskGroup() as tasks:
            computing = tasks.create_task(server.run())
            with pytest.raises(Rejected, match="not taken"):
                await server._serve(Untaken())
            computing.cancel()

    run_simulation(main, 0)
