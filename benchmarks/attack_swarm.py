"""One run for `attacks.py`: sixteen whole participants over the simulated transport learn digits; some of them attack.

Everything is the daemon's own but the network and the clock: rounds, commitments, owners, the rule, the trainer. The
attackers act together and see what the honest ones are about to send; they follow the protocol.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from dht.interfaces import Clock
from dht.simulated import SimulatedNetwork, run_simulation
from peer.data.dataset import Dataset, Predict
from peer.learner import Learner
from peer.misbehaviour import LABEL_FLIP, FlippedLabels
from peer.models.flat import FlatModel, initial_state
from peer.participant import Participant
from peer.profile import Profile
from peer.rejections import Rejections
from peer.trainer import Trainer
from protocols.attacks import Scene, make_attack
from protocols.codecs import Exact, Payload
from protocols.encoding import digest
from protocols.identity import Identity
from protocols.manifest import Averaging, Data, DataParallel, Evaluation, Manifest, Model, Sgd
from protocols.round.events import Trained
from protocols.sampling import Indices
from protocols.signed import Signer
from protocols.state import ModelState
from protocols.vectors import Vector

PEERS = 16
OWNERS = 3
"""Of them can be dialled, and so own the parts; all three are honest."""
BATCH, MICROBATCHES = 32, 2
STEP_SECONDS = 0.05
LOOK_SECONDS = 0.05
BROKEN_SECONDS = 60.0
"""A run that comes no further for so long is broken: its parameters are beyond what can be trained with."""
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
    """The epoch at which they start to attack."""

    def manifest(self) -> Manifest:
        learning_rate = 0.005 if self.rule == "sign_majority" else 0.5
        return Manifest(
            name="attacks",
            seed=self.seed,
            model=Model(architecture="mlp", options={"width": 64, "layers": 1}),
            data=Data(dataset="digits"),
            training=DataParallel(
                batch_size=BATCH,
                target_batch=PEERS * BATCH * MICROBATCHES,
                optimizer=Sgd(
                    learning_rate=learning_rate, momentum=0.9, nesterov=True, final_learning_rate=learning_rate / 10
                ),
            ),
            epochs=self.epochs,
            averaging=Averaging(rule=self.rule, byzantine=0 if self.rule == "mean" else self.attackers, quorum=PEERS),
            evaluation=Evaluation(every_epochs=5, samples=4096),
        )


@dataclass(frozen=True)
class Course:
    """How it went: the accuracy that an honest peer has measured after so many epochs."""

    accuracy: dict[int, float]
    agree: bool
    """Whether all honest peers have ended with the same state."""


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


class Student(Learner):
    """The trainer under virtual time; what it is about to send can be looked at."""

    def __init__(self, trainer: Trainer, clock: Clock, *, evaluates: bool) -> None:
        self.trainer, self._clock, self._evaluates = trainer, clock, evaluates
        self.samples_per_second = BATCH / STEP_SECONDS
        self.epoch = 0

    async def begin(self, state: ModelState) -> None:
        self.epoch = state.epoch
        self.trainer.start_epoch(state)

    async def step(self) -> Trained:
        await self._clock.sleep(STEP_SECONDS)
        self.loss = self.trainer.train_microbatch().loss
        return Trained(self.trainer.samples, self.trainer.complete, self.samples_per_second)

    async def update(self) -> tuple[Vector, int] | None:
        made = self.trainer.update()
        return (made, self.trainer.samples) if self.trainer.samples else None

    async def evaluate(self, state: ModelState) -> dict[str, float]:
        return self.trainer.evaluate(state) if self._evaluates else {}


class Attacker(Student):
    """Sends what its attack makes of all that the honest ones are about to send."""

    def __init__(self, case: Case, students: Sequence[Student], *rest: Any, **options: Any) -> None:
        super().__init__(*rest, **options)
        assert case.attack is not None
        self._forge = make_attack(case.attack, **STRENGTHS.get(case.attack, {}))
        self._case, self._students = case, students
        self._random = np.random.default_rng(case.seed)

    async def update(self) -> tuple[Vector, int] | None:
        made = await super().update()
        if made is None or self.epoch < self._case.begin:
            return made
        own, weight = made
        honest = np.stack([s.trainer.update() for s in self._students if s.epoch == self.epoch and s.trainer.samples])
        forged = self._forge(Scene(own, honest, self._case.attackers, self._random))
        return forged, weight


class Careless(Exact):
    """Sends what is not finite, too; the owners look for themselves."""

    def encode(self, values: Vector) -> Payload:
        return memoryview(np.ascontiguousarray(values, "<f4").view(np.uint8).data)


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


def run(case: Case, whole: Dataset) -> Course:
    return run_simulation(partial(_play, case, whole), case.seed)


async def _play(case: Case, whole: Dataset, network: SimulatedNetwork) -> Course:
    manifest = case.manifest()
    first = initial_state(manifest)
    honest_count = PEERS - (case.attackers if case.attack else 0)
    students: list[Student] = []
    course: dict[int, float] = {}
    members: list[Participant] = []
    for number, indices in enumerate(shares(whole, case)):
        identity = Identity.from_seed(digest(f"attacks {case.seed} {number}".encode()))
        transport = network.join(identity.peer_id, client_mode=number >= OWNERS)
        attacks = number >= honest_count
        flips = attacks and case.attack == LABEL_FLIP
        data = Share(FlippedLabels(whole) if flips else whole, indices)
        trainer = Trainer(manifest, FlatModel.of(manifest.model), data, identity.peer_id)
        student = Student(trainer, transport.clock, evaluates=number == 0)
        if attacks and not flips:
            student = Attacker(case, students, trainer, transport.clock, evaluates=False)
        elif not attacks:
            students.append(student)
        members.append(_participant(manifest, identity, network, transport, first, student, number))
        if attacks:
            members[-1]._plan = replace(members[-1]._plan, codec=Careless())
    async with asyncio.TaskGroup() as tasks:
        running = []
        for member in members:
            await member.start()
            running.append(tasks.create_task(member.run()))
        watched, epoch, since = members[0], 0, network.clock.monotonic()
        while not all(member.finished and member.activity == "idle" for member in members[:honest_count]):
            await network.clock.sleep(LOOK_SECONDS)
            if watched.evaluated_epoch is not None:
                course[watched.evaluated_epoch] = watched.evaluation["accuracy"]
            if watched.state.epoch != epoch:
                epoch, since = watched.state.epoch, network.clock.monotonic()
            elif network.clock.monotonic() > since + BROKEN_SECONDS:
                course[case.epochs] = (await students[0].evaluate(watched.state))["accuracy"]
                break
        for task in running:
            task.cancel()
    return Course(course, len({member.state.digest for member in members[:honest_count]}) == 1)


def _participant(
    manifest: Manifest,
    identity: Identity,
    network: SimulatedNetwork,
    transport: Any,
    state: ModelState,
    learner: Learner,
    number: int,
) -> Participant:
    return Participant(
        transport=transport,
        records=network.records(identity.peer_id),
        signer=Signer(identity, manifest.run_id, 1),
        manifest=manifest,
        profile=Profile(f"peer {number}", client_mode=number >= OWNERS, addresses=lambda: transport.addresses),
        state=state,
        learner=learner,
        rejections=Rejections(),
    )
