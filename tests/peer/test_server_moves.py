"""Who serves another stage by now answers "moved" to works of the one before, and computes those of the new one."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import numpy as np
import pytest
import torch

from dht.border import Border
from dht.clock import SystemClock
from peer.models.stages import stage_state
from peer.swarm.compute import Backward, StageCompute
from peer.swarm.factory import StageFactory, real_compute
from peer.swarm.server import StageServer
from peer.swarm.stage import Moved, Stage
from protocols.activations import encode_tensor
from protocols.identity import PeerId
from protocols.signed import Signer
from protocols.swarm.messages import Answer, Delivery, Work
from tests.peer.pipeline_swarm import pipeline
from tests.peer.simulated_swarm import identity

T = TypeVar("T")

MANIFEST, CLOCK, TRAINER = pipeline(stages=4), SystemClock(), PeerId("trainer")
TENSOR, PAYLOAD = encode_tensor(np.ones((8, 16), np.float32))
FACTORY = StageFactory(MANIFEST, None, CLOCK)


class Threads:
    """Stands for a transport; what is to be decoded waits until the test says so."""

    peer_id, clock = PeerId("server"), CLOCK

    def __init__(self) -> None:
        self.asked, self.go_on = asyncio.Event(), asyncio.Event()
        self.go_on.set()

    async def in_thread(self, call: Callable[..., T], *arguments: Any) -> T:
        self.asked.set()
        await self.go_on.wait()
        return call(*arguments)


class Held:
    """A backward pass ends when the test says so."""

    keeps = False

    def __init__(self, compute: StageCompute) -> None:
        self.begun, self.to_end = threading.Event(), threading.Event()
        self._compute = compute
        self.has_kept, self.forward = compute.has_kept, compute.forward
        self.backward_from_loss = compute.backward_from_loss

    def backward(self, *arguments: Any) -> Backward:
        self.begun.set()
        self.to_end.wait()
        return self._compute.backward(*arguments)


@asynccontextmanager
async def serving(threads: Threads, stage: Stage) -> AsyncIterator[StageServer]:
    """Nothing fails meanwhile that was not foreseen."""
    failed: list[str] = []
    border = Border(threads.peer_id, CLOCK, lambda _peer, _reason, message: failed.append(message))
    signer = Signer(identity(0), MANIFEST.run_id, 0)
    server = StageServer(threads, signer, MANIFEST.training, border, lambda _peer: None)  # type: ignore[arg-type]
    server.take(stage, FACTORY.accepted(stage.number))
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(server.run())
        yield server
        running.cancel()
    assert not failed


async def stage(number: int, compute: Any = None) -> Stage:
    made = Stage(MANIFEST, number, compute or real_compute(MANIFEST, number), CLOCK)
    await made.begin(stage_state(MANIFEST, number))
    return made


async def ask(server: StageServer, number: int, task: Any = "backward") -> Answer:
    other, payloads = (TENSOR, [PAYLOAD, PAYLOAD]) if task == "backward" else (None, [PAYLOAD])
    work = Work(task=task, epoch=0, stage=number, microbatch=0, inputs=TENSOR, other=other)
    answer, _ = await server.handle(TRAINER, Delivery(work=work), payloads)
    return answer


async def test_a_work_is_not_computed_by_another_stage_than_it_was_sent_to() -> None:
    """Else an honest peer signs a wrong answer, for which it is banned where works are checked."""
    threads, before, after = Threads(), await stage(1), await stage(2)
    threads.go_on.clear()
    async with serving(threads, before) as server, asyncio.TaskGroup() as tasks:
        answering = tasks.create_task(ask(server, 1))
        await threads.asked.wait()
        server.take(after, FACTORY.accepted(2))
        threads.go_on.set()
        assert (await answering).outcome == "moved"
        assert (await ask(server, 2)).outcome == "done"
    for each in (before, after):
        await each.close()


async def test_a_stage_that_is_closed_in_the_middle_of_a_work_ends_nothing_else() -> None:
    held = Held(real_compute(MANIFEST, 1))
    before, after = await stage(1, held), await stage(2)
    try:
        async with serving(Threads(), before) as server, asyncio.TaskGroup() as tasks:
            answering = tasks.create_task(ask(server, 1))
            await asyncio.to_thread(held.begun.wait)
            server.take(after, FACTORY.accepted(2))
            tasks.create_task(before.close())
            await asyncio.to_thread(held.to_end.set)
            assert (await answering).outcome == "moved"
            assert (await ask(server, 2)).outcome == "done"
    finally:
        held.to_end.set()
        await after.close()


async def test_what_waits_for_a_stage_that_is_closed_is_done_and_nothing_that_comes_later() -> None:
    """Whoever waits for it has not been cancelled."""
    held = Held(real_compute(MANIFEST, 1))
    closed = await stage(1, held)
    inputs = torch.ones(8, 16)
    try:
        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            first = tasks.create_task(closed.redo(0, inputs, inputs))
            await asyncio.to_thread(held.begun.wait)
            waiting = tasks.create_task(closed.redo(0, inputs, None))
            closing = tasks.create_task(closed.close())
            await asyncio.to_thread(held.to_end.set)
            await closing
            assert (await first)[0] is not None
            assert (await waiting)[0] is not None
        with pytest.raises(Moved):
            await closed.redo(0, inputs, None)
    finally:
        held.to_end.set()
