"""A learner under virtual time: its work is done at once, and takes as long as the peer's machine would."""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

from dht.interfaces import Clock
from peer.learner import Learner
from protocols.identity import PeerId
from protocols.round.events import Trained
from protocols.state import ModelState
from protocols.vectors import Vector


class Trains(Protocol):
    """What a `PacedLearner` needs of a trainer; `peer.trainer.Trainer` is one."""

    samples: int

    @property
    def complete(self) -> bool: ...
    def start_epoch(self, state: ModelState) -> None: ...
    def train_microbatch(self) -> object: ...
    def update(self) -> Vector: ...
    def evaluate(self, state: ModelState) -> dict[str, float]: ...


@dataclass
class Pace:
    """How fast a machine computes: each microbatch takes its samples' time, times a log-normal factor of median 1."""

    samples_per_second: float
    jitter: float = 0.0
    """Standard deviation of the factor's logarithm."""
    random: Random = field(default_factory=lambda: Random(0))  # noqa: S311 (repeatable on purpose)

    def seconds(self, samples: int) -> float:
        factor = self.random.lognormvariate(0.0, self.jitter) if self.jitter else 1.0
        return samples / self.samples_per_second * factor


class PacedLearner(Learner):
    def __init__(
        self,
        trainer: Trains,
        batch_size: int,
        clock: Clock,
        pace: Pace,
        examine: Callable[[PeerId], Trains] | None = None,
        trained: dict[int, int] | None = None,
    ) -> None:
        """`examine`: makes a trainer that does what another peer does.

        `trained`: gets by epoch on how many samples it has trained, at most.
        """
        self.samples_per_second = pace.samples_per_second
        self._trained, self._epoch = trained if trained is not None else {}, 0
        self._trainer, self._batch_size, self._clock, self._pace, self._examine = (
            trainer,
            batch_size,
            clock,
            pace,
            examine,
        )

    async def begin(self, state: ModelState) -> None:
        self._epoch = state.epoch
        self._trainer.start_epoch(state)

    async def step(self) -> Trained:
        await self._train(self._trainer)
        self._trained[self._epoch] = max(self._trained.get(self._epoch, 0), self._trainer.samples)
        return Trained(self._trainer.samples, self._trainer.complete, self.samples_per_second)

    async def _train(self, trainer: Trains) -> None:
        await self._clock.sleep(self._pace.seconds(self._batch_size))
        trainer.train_microbatch()

    async def update(self) -> tuple[Vector, int] | None:
        return (self._trainer.update(), self._trainer.samples) if self._trainer.samples else None

    async def evaluate(self, state: ModelState) -> dict[str, float]:
        return self._trainer.evaluate(state)

    async def recompute(self, state: ModelState, peer: PeerId, samples: int) -> Vector | None:
        if self._examine is None:
            return None
        trainer = self._examine(peer)
        trainer.start_epoch(state)
        while trainer.samples < samples and not trainer.complete:
            await self._train(trainer)
        return trainer.update() if trainer.samples else None
