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
from protocols.attacks import ATTACKS, Attack, Scene, make_attack
from protocols.encoding import digest
from protocols.identity import Identity
from protocols.manifest import (
    AdamW,
    Averaging,
    Data,
    DataParallel,
    Evaluation,
    Manifest,
    Model,
    Optimizer,
    Sgd,
    Verification,
)
from protocols.sampling import Indices
from protocols.vectors import Vector

NO_ATTACK = "none"
SMALL_DRIFT = "small_drift"
ALL_ATTACKS = (NO_ATTACK, LABEL_FLIP, *ATTACKS, SMALL_DRIFT)
PEERS = 16
BATCH, MICROBATCHES = 80, 2
"""Samples of a microbatch, and microbatches of a peer in an epoch."""
STRENGTHS: dict[str, tuple[str, dict[str, Any]]] = {
    "sign_flip": ("sign_flip", {"scale": 1000.0}),
    SMALL_DRIFT: ("drift", {"scale": 1.0}),
}
"""Of the attacks, where it is another than usual; BTARD's sign flip is this strong. A drift no longer than an honest
update is not plain to see."""
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
    optimizer: str = "sgd"
    """`sgd` with momentum, whose steps are as long as what the rule makes of the updates, or `adamw`."""
    validators: int = 0
    """Who check the others in each epoch, for whole participants; 0: nobody is banned."""

    def manifest(self) -> Manifest:
        return Manifest(
            name="attacks",
            seed=self.seed,
            model=Model(architecture="mlp", options={"width": 64, "layers": 1}),
            data=Data(dataset="digits"),
            training=DataParallel(
                batch_size=BATCH,
                target_batch=PEERS * BATCH * (MICROBATCHES - 1),  # all are in their last one when the epoch closes
                optimizer=self._steps(),
            ),
            epochs=self.epochs,
            averaging=Averaging(rule=self.rule, byzantine=0 if self.rule == "mean" else self.attackers, quorum=PEERS),
            evaluation=Evaluation(every_epochs=1 if self.begin else 10, samples=4096),
            verification=Verification(validators=self.validators),
        )

    def _steps(self) -> Optimizer:
        """Of the rates that were tried, those with which most is learnt in 60 epochs."""
        if self.optimizer == "adamw":
            return AdamW(learning_rate=0.05, warmup_epochs=5, final_learning_rate=0.005)
        rate = 0.005 if self.rule == "sign_majority" else 0.5
        return Sgd(learning_rate=rate, momentum=0.9, nesterov=True, final_learning_rate=rate / 10)

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
    banned: int = 0
    """By the honest, in the end; they agree."""
    banned_by: int | None = None
    """The epoch by which all attackers were."""


class Forger:
    """What one attacker sends instead of its own update."""

    def __init__(self, case: Case, number: int) -> None:
        self._case = case
        self._forge = None if case.attack in (None, LABEL_FLIP) else _attack(case.attack)
        self._random = np.random.default_rng([case.seed, number])

    def update(self, epoch: int, own: Vector, honest: Sequence[Vector]) -> Vector:
        if self._forge is None:
            return own
        forged = self._forge(Scene(own, np.stack(honest), self._case.attackers, self._random))
        return forged if epoch >= self._case.begin else own


def _attack(name: str) -> Attack:
    attack, strength = STRENGTHS.get(name, (name, {}))
    return make_attack(attack, **strength)


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
