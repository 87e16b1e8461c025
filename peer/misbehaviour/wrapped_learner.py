"""A learner that passes everything on to another one, for attacks to change what comes of it."""

from collections.abc import Awaitable, Callable
from typing import Any

from peer.learner import Learner
from protocols.identity import PeerId
from protocols.round.events import Trained
from protocols.state import ModelState
from protocols.vectors import Vector


class WrappedLearner(Learner):
    def __init__(self, honest: Learner) -> None:
        self._honest = honest

    @property
    def loss(self) -> float | None:  # type: ignore[override]
        return self._honest.loss

    @property
    def samples_per_second(self) -> float:  # type: ignore[override]
        return self._honest.samples_per_second

    async def begin(self, state: ModelState) -> None:
        await self._honest.begin(state)

    async def step(self) -> Trained:
        return await self._honest.step()

    async def update(self) -> tuple[Vector, int] | None:
        return await self._honest.update()

    async def evaluate(self, state: ModelState) -> dict[str, float]:
        return await self._honest.evaluate(state)

    async def recompute(self, state: ModelState, peer: PeerId, samples: int) -> Vector | None:
        return await self._honest.recompute(state, peer, samples)


def with_learner(given: dict[str, Any], wrap: Callable[[Learner], Learner]) -> dict[str, Any]:
    """The arguments of a participant whose learner is wrapped, also where it is made only when others are there."""
    given = given | {"learner": wrap(given["learner"])}
    prepare: Callable[[], Awaitable[Learner]] | None = given.get("prepare")
    if prepare is None:
        return given

    async def prepare_wrapped() -> Learner:
        return wrap(await prepare())

    return given | {"prepare": prepare_wrapped}
