"""The trainer as a session sees it: asynchronous, in one thread of its own, so that its calls never overlap."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from dht.interfaces import Clock
from protocols.round.events import Trained
from protocols.state import ModelState
from protocols.vectors import Vector

if TYPE_CHECKING:
    from peer.trainer import StepReport, Trainer

T = TypeVar("T")

SMOOTHING = 0.1
"""Weight of the newest microbatch in the speed and the loss that are reported."""


class Learner(ABC):
    """What trains between two rounds."""

    loss: float | None = None
    """Of the last microbatches, smoothed; None before the first."""
    samples_per_second: float = 0.0

    @abstractmethod
    async def begin(self, state: ModelState) -> None:
        """Starts the epoch of `state`."""

    @abstractmethod
    async def step(self) -> Trained:
        """One microbatch."""

    @abstractmethod
    async def update(self) -> tuple[Vector, int] | None:
        """This epoch's update (flat float32) and the samples behind it; None when there are none."""

    @abstractmethod
    async def evaluate(self, state: ModelState) -> dict[str, float]:
        """The metrics of the run's data set."""


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
    def __init__(self, trainer: "Trainer", clock: Clock) -> None:
        self._trainer, self._clock = trainer, clock
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
