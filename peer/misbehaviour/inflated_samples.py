"""A member that claims to have trained on far more than it has: in `Progress`, in `Ready`, and when it leads."""

from typing import Any

from peer.misbehaviour.wrapped_learner import WrappedLearner, with_learner
from peer.participant import Participant
from protocols.message import MAX_COUNT
from protocols.round.events import Trained
from protocols.vectors import Vector

TIMES = 1000


class InflatedSamples(WrappedLearner):
    async def step(self) -> Trained:
        trained = await super().step()
        return Trained(_inflated(trained.samples), trained.complete, trained.samples_per_second)

    async def update(self) -> tuple[Vector, int] | None:
        made = await super().update()
        return None if made is None else (made[0], _inflated(made[1]))


def _inflated(samples: int) -> int:
    return min(TIMES * samples, MAX_COUNT)


def inflated_samples(**given: Any) -> Participant:
    return Participant(**with_learner(given, InflatedSamples))
