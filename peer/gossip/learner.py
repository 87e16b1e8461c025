"""The trainer as a gossiping member sees it: asynchronous, in one thread of its own, so that calls never overlap."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from dht.interfaces import Clock
from protocols.manifest import Gossip
from protocols.state import ModelState
from protocols.vectors import Vector

if TYPE_CHECKING:
    from peer.gossip.trainer import GossipTrainer

T = TypeVar("T")

SMOOTHING = 0.05
"""Weight of the newest step in the speed and the loss that are reported."""


class GossipLearner(ABC):
    """One peer's model on its way: trained, and shifted by what others have."""

    loss: float | None = None
    """Of the last steps, smoothed; None before the first."""
    samples_per_second: float = 0.0
    layers: Sequence[slice] = ()
    """What of the vector each layer has."""

    @abstractmethod
    async def begin(self, state: ModelState) -> None:
        """Goes on from `state`."""

    @abstractmethod
    async def step(self, epoch: int, number: int, training: Gossip) -> int:
        """One step; how many samples it has added."""

    @abstractmethod
    async def shift(self, shift: Vector) -> None:
        """Adds a vector to the model, between two steps."""

    @abstractmethod
    async def parameters(self) -> Vector:
        """A copy of the model. Raises ArithmeticError when it is not finite."""

    @abstractmethod
    async def state(self, epoch: int) -> ModelState:
        """A copy of the model and of what its optimizer keeps. Raises ArithmeticError when it is not finite."""

    @abstractmethod
    async def evaluate(self) -> dict[str, float]:
        """The metrics of the run's data set, of the model as it is."""


class TrainerGossipLearner(GossipLearner):
    def __init__(self, trainer: "GossipTrainer", clock: Clock) -> None:
        self.layers = trainer.layers
        self._trainer, self._clock = trainer, clock
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="trainer")

    async def begin(self, state: ModelState) -> None:
        await self._in_thread(partial(self._trainer.load, state))

    async def step(self, epoch: int, number: int, training: Gossip) -> int:
        began = self._clock.monotonic()
        loss = await self._in_thread(partial(self._trainer.step, epoch, number, training))
        samples = training.batch_size if loss is not None else 0
        speed = samples / max(self._clock.monotonic() - began, 1e-6)
        first = self.loss is None
        self.samples_per_second += (speed - self.samples_per_second) * (1.0 if first else SMOOTHING)
        if loss is not None:
            self.loss = loss if self.loss is None else self.loss + (loss - self.loss) * SMOOTHING
        return samples

    async def shift(self, shift: Vector) -> None:
        await self._in_thread(partial(self._trainer.shift, shift))

    async def parameters(self) -> Vector:
        return await self._in_thread(self._trainer.parameters)

    async def state(self, epoch: int) -> ModelState:
        return await self._in_thread(partial(self._trainer.state, epoch))

    async def evaluate(self) -> dict[str, float]:
        return await self._in_thread(self._trainer.evaluate)

    async def close(self) -> None:
        """Returns when a step that is under way has ended; cancelled, it does not wait for it."""
        await asyncio.to_thread(self._thread.shutdown, wait=True, cancel_futures=True)

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)
