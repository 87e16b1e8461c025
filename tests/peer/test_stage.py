"""A stage counts while it computes."""

import asyncio
import threading

import torch
from torch import Tensor

from dht.clock import SystemClock
from peer.models.stages import parameter_count, stage_state
from peer.swarm.compute import Backward
from peer.swarm.kept_passes import Passage
from peer.swarm.stage import Order, Stage
from protocols.activations import TensorHeader
from protocols.identity import PeerId
from protocols.vectors import Vector
from tests.peer.pipeline_swarm import pipeline

MANIFEST, TRAINER = pipeline(stages=2), PeerId("trainer")
INPUTS, GRADIENT = torch.zeros(8, 64), torch.zeros(8, 16)


def order(microbatch: int, gradient: Tensor | None = None) -> Order:
    header = TensorHeader(encoding="none", shape=tuple(INPUTS.shape))
    return Order(Passage(TRAINER, 0, microbatch, header, b"inputs"), INPUTS, gradient)


class Held:
    """A forward pass ends when the test says so."""

    def __init__(self) -> None:
        self.begun, self.to_end = threading.Event(), threading.Event()
        self._gradient: Vector = torch.ones(parameter_count(MANIFEST, 0)).numpy()

    keeps = False

    def has_kept(self, _passage: Passage) -> bool:
        return False

    def forward(self, _parameters: Vector, _inputs: Tensor, _passage: Passage | None = None) -> Tensor:
        self.begun.set()
        self.to_end.wait()
        return GRADIENT

    def backward(
        self, _parameters: Vector, _inputs: Tensor | None, _grad_outputs: Tensor, _passage: Passage | None = None
    ) -> Backward:
        return Backward(None, self._gradient, None, finite=True)

    def backward_from_loss(self, _parameters: Vector, _inputs: Tensor, _targets: Tensor) -> Backward:
        raise NotImplementedError


async def test_who_has_something_counted_does_not_wait_for_what_is_computed() -> None:
    held = Held()
    stage = Stage(MANIFEST, 0, held, SystemClock())
    await stage.begin(stage_state(MANIFEST, 0))
    await stage.backward(order(3, GRADIENT))
    try:
        async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
            computing = tasks.create_task(stage.forward([order(4)]))
            await asyncio.to_thread(held.begun.wait)
            assert await stage.count(0, 0b1000, TRAINER) == 0b1000
            update = await stage.update()
            assert update is not None
            vector, samples = update
            assert (vector.min(), vector.max(), samples) == (1, 1, 8)
            assert not computing.done()
            held.to_end.set()
    finally:
        held.to_end.set()
        await stage.close()
