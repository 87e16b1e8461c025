"""One run for `attacks.py`: its manifest, who has which data, and what the attackers send.

Attackers act together, and see what the honest ones are about to send; they follow the protocol. `attack_steps.py`
plays a case without a network, `attack_swarm.py` with whole participants.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from peer.data.dataset import Dataset, Predict
from peer.misbehaviour import LABEL_FLIP, FlippedLabels
from peer.models.flat import FlatModel
from peer.trainer import Trainer
from protocols.attacks import ATTACKS, Scene, make_attack
from protocols.encoding import digest
from protocols.identity import Identity
from protocols.manifest import Averaging, Data, DataParallel, Evaluation, Manifest, Model, Sgd
from protocols.sampling import Indices
from protocols.vectors import Vector

NO_ATTACK = "none"
ALL_ATTACKS = (NO_ATTACK, LABEL_FLIP, *ATTACKS)
PEERS = 16
BATCH, MICROBATCHES = 80, 2
"""Samples of a microbatch, and microbatches of a peer in an epoch."""
STRENGTHS: dict[str, dict[str, Any]] = {"sign_flip": {"scale": 1000.0}}
"""Of the attacks, where it is another than usual; BTARD's sign flip is this strong."""
SIMILAR = 0.5
"""Of a peer's samples are drawn from all, where the data are split; the others are of two or three labels."""


@dataclass(frozen=True)
class Case:
    rule: str
    attack: str | None
    attackers: int
    """Assumed (f); without an attack they are honest."""
    split: bool
    """Whether each peer has data of its own kind."""
    epochs: int
    seed: int
    begin: int = 0
    """The epoch at which they start to attack; then every epoch is evaluated, else every tenth."""

    def manifest(self) -> Manifest:
        learning_rate = 0.005 if self.rule == "sign_majority" else 0.5
        return Manifest(
            name="attacks",
            seed=self.seed,
            model=Model(architecture="mlp", options={"width": 64, "layers": 1}),
            data=Data(dataset="digits"),
            training=DataParallel(
                batch_size=BATCH,
                target_batch=PEERS * BATCH * (MICROBATCHES - 1),  # all are in their last one when the epoch closes
                optimizer=Sgd(
                    learning_rate=learning_rate, momentum=0.9, nesterov=True, final_learning_rate=learning_rate / 10
                ),
            ),
            epochs=self.epochs,
            averaging=Averaging(rule=self.rule, byzantine=0 if self.rule == "mean" else self.attackers, quorum=PEERS),
            evaluation=Evaluation(every_epochs=1 if self.begin else 10, samples=4096),
        )

    @property
    def honest(self) -> int:
        """So many; the attackers are the last of the peers."""
        return PEERS - (self.attackers if self.attack else 0)

    def identity(self, number: int) -> Identity:
        return Identity.from_seed(digest(f"attacks {self.seed} {number}".encode()))

    def trainer(self, number: int, model: FlatModel, whole: Dataset, indices: Indices) -> Trainer:
        """`model`: may be others' too who train at other times; `indices`: of its samples."""
        flips = number >= self.honest and self.attack == LABEL_FLIP
        data = Share(FlippedLabels(whole) if flips else whole, indices)
        return Trainer(self.manifest(), model, data, self.identity(number).peer_id)


@dataclass(frozen=True)
class Course:
    """How it went: the accuracy that an honest peer has measured after so many epochs."""

    accuracy: dict[int, float]
    agree: bool = True
    """Whether all honest peers have ended with the same state."""


class Forger:
    """What one attacker sends instead of its own update."""

    def __init__(self, case: Case, number: int) -> None:
        self._case = case
        attack = case.attack if case.attack != LABEL_FLIP else None
        self._forge = make_attack(attack, **STRENGTHS.get(attack, {})) if attack else None
        self._random = np.random.default_rng([case.seed, number])

    def update(self, epoch: int, own: Vector, honest: Sequence[Vector]) -> Vector:
        if self._forge is None:
            return own
        forged = self._forge(Scene(own, np.stack(honest), self._case.attackers, self._random))
        return forged if epoch >= self._case.begin else own


class Share(Dataset):
    """A peer's own part of the data."""

    def __init__(self, whole: Dataset, indices: Indices) -> None:
        self._whole, self._indices = whole, indices
        self.train_size = len(indices)

    def batch(self, indices: Indices) -> tuple[Tensor, Tensor]:
        return self._whole.batch(self._indices[indices])

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self._whole.loss(outputs, targets)

    def evaluate(self, model: Predict, limit: int) -> dict[str, float]:
        return self._whole.evaluate(model, limit)


def shares(whole: Dataset, case: Case) -> list[Indices]:
    """Of each peer; all of the data, unless they are split."""
    if not case.split:
        return [np.arange(whole.train_size)] * PEERS
    random = np.random.default_rng(case.seed)
    _, labels = whole.batch(np.arange(whole.train_size))
    size = whole.train_size // PEERS
    mixed = random.permutation(whole.train_size)
    common = int(SIMILAR * size)
    rest = mixed[common * PEERS :]
    by_label = rest[np.argsort(labels.numpy()[rest], kind="stable")]
    own = np.array_split(by_label, PEERS)
    order = random.permutation(PEERS)  # else the attackers would be those with certain labels
    return [np.concatenate([mixed[common * n : common * (n + 1)], own[order[n]]]) for n in range(PEERS)]
