"""The trainer as a session sees it: asynchronous, in one thread of its own, so that its calls never overlap."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from dht.interfaces import Clock
from protocols.codecs import Codec
from protocols.identity import PeerId
from protocols.round.aggregate import AggregateMemory
from protocols.round.events import Trained
from protocols.round.reduction import EncodedUpdate
from protocols.state import ModelState
from protocols.vectors import Vector

if TYPE_CHECKING:
    from peer.trainer import StepReport, Trainer

T = TypeVar("T")
InThread = Callable[..., Awaitable[Any]]
"""Runs heavy work off the event loop: `Transport.in_thread`."""

DROPPED = 8
"""Microbatches that are not finite are dropped; a few, of whoever trains."""
SMOOTHING = 0.1
"""Weight of the newest microbatch in the speed and the loss that are reported."""


class Learner(ABC):
    """What trains between two rounds."""

    loss: float | None = None
    """Of the last microbatches, smoothed; None before the first."""
    samples_per_second: float = 0.0
    covered: bytes = b""
    """In a pipeline: the microbatches behind the last `update`."""

    @abstractmethod
    async def begin(self, state: ModelState) -> None:
        """Starts the epoch of `state`."""

    @abstractmethod
    async def step(self) -> Trained:
        """One microbatch."""

    @abstractmethod
    async def update(self) -> tuple[Vector, int] | None:
        """This epoch's update (flat float32), the caller's own, and the samples behind it; None when there are none."""

    async def encoded(
        self, codec: Codec, in_thread: InThread, memory: AggregateMemory
    ) -> tuple[EncodedUpdate, int] | None:
        """The same, as it is sent; `memory` gets the vector that it was, where nothing of it is needed for that."""
        made = await self.update()
        if made is None:
            return None
        update, samples = made
        encoded = await in_thread(EncodedUpdate, update, codec)
        if codec.copies:
            memory.offer(update)
        return encoded, samples

    @abstractmethod
    async def evaluate(self, state: ModelState) -> dict[str, float]:
        """The metrics of the run's data set."""

    async def give_way(self, covered: bytes) -> None:  # noqa: B027  (of a pipeline's stage alone)
        """What we have counted of the epoch is thrown away, if these microbatches are among it: they do not count."""

    async def finish(self, state: ModelState) -> None:  # noqa: B027  (most have nothing to do)
        """The run has come to its end with `state`."""

    async def recompute(self, state: ModelState, peer: PeerId, samples: int) -> Vector | None:
        """The update that `peer` makes of so many samples in the epoch of `state`; None where we cannot tell."""
        return None


class IdleLearner(Learner):
    """Of a member that does not train."""

    async def begin(self, state: ModelState) -> None:
        pass

    async def step(self) -> Trained:
        return Trained(0, True, 0.0)

    async def update(self) -> None:
        return None

    async def evaluate(self, state: ModelState) -> dict[str, float]:
        return {}


class TrainerLearner(Learner):
    def __init__(self, trainer: "Trainer", clock: Clock, examine: "Callable[[PeerId], Trainer] | None" = None) -> None:
        """`examine`: makes a trainer that does what another peer does, with a model of its own."""
        self._trainer, self._clock, self._examine = trainer, clock, examine
        self._examining = asyncio.Lock()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="trainer")

    async def begin(self, state: ModelState) -> None:
        await self._in_thread(lambda: self._trainer.start_epoch(state))

    async def step(self) -> Trained:
        began = self._clock.monotonic()
        report: StepReport = await self._in_thread(self._trainer.train_microbatch)
        self._observe(report, self._clock.monotonic() - began)
        return Trained(self._trainer.samples, self._trainer.complete, self.samples_per_second)

    async def update(self) -> tuple[Vector, int] | None:
        update = await self._in_thread(self._trainer.update)
        return (update, self._trainer.samples) if self._trainer.samples else None

    async def evaluate(self, state: ModelState) -> dict[str, float]:
        return await self._in_thread(lambda: self._trainer.evaluate(state))

    async def recompute(self, state: ModelState, peer: PeerId, samples: int) -> Vector | None:
        """Microbatch by microbatch, between those of our own training."""
        if self._examine is None:
            return None
        async with self._examining:
            return await self._recompute(await self._in_thread(partial(self._examine, peer)), state, samples)

    async def _recompute(self, trainer: "Trainer", state: ModelState, samples: int) -> Vector | None:
        await self._in_thread(partial(trainer.start_epoch, state))
        steps = 0
        while trainer.samples < samples and not trainer.complete:
            await self._in_thread(trainer.train_microbatch)
            steps += 1
            if trainer.dropped > steps // 2 + DROPPED:
                return None  # it may have trained on more than we are ready to try
        update = await self._in_thread(trainer.update)
        return update if trainer.samples == samples else np.zeros_like(update)

    async def close(self) -> None:
        """Returns when a microbatch that is under way has ended; cancelled, it does not wait for it."""
        await asyncio.to_thread(self._thread.shutdown, wait=True, cancel_futures=True)

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    def _observe(self, report: "StepReport", seconds: float) -> None:
        speed = report.samples / max(seconds, 1e-6)
        first = self.loss is None
        self.samples_per_second += (speed - self.samples_per_second) * (1.0 if first else SMOOTHING)
        if report.samples:
            self.loss = report.loss if self.loss is None else self.loss + (report.loss - self.loss) * SMOOTHING
