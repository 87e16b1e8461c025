"""A member that attacks on purpose, in a run whose manifest allows it: to see that the others withstand it."""

from collections import deque

import numpy as np
from torch import Tensor

from peer.data.dataset import Dataset, Predict
from peer.learner import Learner
from protocols.attacks import ATTACKS, Scene, make_attack
from protocols.encoding import digest
from protocols.identity import PeerId
from protocols.round.events import Trained
from protocols.sampling import Indices
from protocols.state import ModelState
from protocols.vectors import Vector

LABEL_FLIP = "label_flip"
MISBEHAVIOURS = (LABEL_FLIP, *(name for name in ATTACKS if name != "nan"))
"""NaN is refused where an update is encoded, so no daemon can send it."""
REMEMBERED = 8


class MisbehavingLearner(Learner):
    """Trains as `honest` does, and sends something else.

    Nobody sees what the others send before it has committed to its own update, so an attack that has to know takes its
    own updates of the last epochs for theirs.
    """

    def __init__(self, honest: Learner, attack: str, peer: PeerId) -> None:
        self._honest = honest
        self._forge = make_attack(attack)
        self._seen: deque[Vector] = deque(maxlen=REMEMBERED)
        self._random = np.random.default_rng(int.from_bytes(digest(peer.encode())[:8], "big"))

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
        made = await self._honest.update()
        if made is None:
            return None
        own, samples = made
        self._seen.append(own)
        return self._forge(Scene(own, np.stack(self._seen), 1, self._random)), samples

    async def evaluate(self, state: ModelState) -> dict[str, float]:
        return await self._honest.evaluate(state)

    async def recompute(self, state: ModelState, peer: PeerId, samples: int) -> Vector | None:
        return await self._honest.recompute(state, peer, samples)


class FlippedLabels(Dataset):
    """The classes of the data in reverse: the last for the first. Evaluation is what it was."""

    def __init__(self, whole: Dataset) -> None:
        self._whole = whole
        self.train_size = whole.train_size
        self._largest = int(whole.batch(np.arange(whole.train_size))[1].max())

    def batch(self, indices: Indices) -> tuple[Tensor, Tensor]:
        inputs, targets = self._whole.batch(indices)
        return inputs, self._largest - targets

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self._whole.loss(outputs, targets)

    def evaluate(self, model: Predict, limit: int) -> dict[str, float]:
        return self._whole.evaluate(model, limit)
