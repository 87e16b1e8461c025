"""Attacks on the model: a member that keeps to the protocol, and trains on, or sends, something else."""

from collections import deque

import numpy as np
from torch import Tensor

from peer.data.dataset import Dataset, Predict
from peer.learner import Learner
from peer.misbehaviour.wrapped_learner import WrappedLearner
from protocols.attacks import ATTACKS, Scene, make_attack
from protocols.encoding import digest
from protocols.identity import PeerId
from protocols.sampling import Indices
from protocols.vectors import Vector

LABEL_FLIP = "label_flip"
FORGERIES = tuple(name for name in ATTACKS if name != "nan")
"""Of what was trained as it should be. NaN is refused where an update is encoded, so no daemon can send it."""
MODEL_ATTACKS = (LABEL_FLIP, *FORGERIES)
REMEMBERED = 8


class MisbehavingLearner(WrappedLearner):
    """Trains as `honest` does, and sends something else.

    Nobody sees what the others send before it has committed to its own update, so an attack that has to know takes its
    own updates of the last epochs for theirs.
    """

    def __init__(self, honest: Learner, attack: str, peer: PeerId) -> None:
        super().__init__(honest)
        self._forge = make_attack(attack)
        self._seen: deque[Vector] = deque(maxlen=REMEMBERED)
        self._random = np.random.default_rng(int.from_bytes(digest(peer.encode())[:8], "big"))

    async def update(self) -> tuple[Vector, int] | None:
        made = await super().update()
        if made is None:
            return None
        own, samples = made
        self._seen.append(own)
        return self._forge(Scene(own, np.stack(self._seen), 1, self._random)), samples


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
