"""A case of `attacks.py` with whole participants over the simulated transport.

Everything is the daemon's own but the network and the clock: rounds, commitments, owners, the rule, the trainer.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from attack_case import BATCH, PEERS, Case, Course, Forger, shares

from dht.interfaces import Clock
from dht.simulated import SimulatedNetwork, run_simulation
from peer.data.dataset import Dataset
from peer.learner import Learner
from peer.models.flat import FlatModel, initial_state
from peer.participant import Participant
from peer.profile import Profile
from peer.rejections import Rejections
from peer.trainer import Trainer
from protocols.codecs import Exact, Payload
from protocols.identity import Identity, PeerId
from protocols.manifest import Manifest
from protocols.round.events import Trained
from protocols.signed import Signer
from protocols.state import ModelState
from protocols.vectors import Vector

OWNERS = 3
"""Of the peers can be dialled, and so own the parts; all three are honest."""
STEP_SECONDS = 0.5
"""Longer than the epoch's end takes to get about, so that all peers train on as many microbatches."""
LOOK_SECONDS = 0.2
BROKEN_SECONDS = 60.0
"""A run that comes no further for so long is broken: its parameters are beyond what can be trained with."""


class Student(Learner):
    """The trainer under virtual time; what it is about to send can be looked at."""

    def __init__(
        self, trainer: Trainer, clock: Clock, examine: Callable[[PeerId], Trainer], *, evaluates: bool
    ) -> None:
        """`examine`: a trainer that does what another peer does."""
        self.trainer, self._clock, self._examine, self._evaluates = trainer, clock, examine, evaluates
        self.samples_per_second = BATCH / STEP_SECONDS
        self.epoch = 0
        self.made: Vector | None = None
        """This epoch's update, once it is there."""

    async def begin(self, state: ModelState) -> None:
        self.epoch, self.made = state.epoch, None
        self.trainer.start_epoch(state)

    async def step(self) -> Trained:
        await self._clock.sleep(STEP_SECONDS)
        self.loss = self.trainer.train_microbatch().loss
        return Trained(self.trainer.samples, self.trainer.complete, self.samples_per_second)

    async def update(self) -> tuple[Vector, int] | None:
        self.made = self.trainer.update()
        return (self.made, self.trainer.samples) if self.trainer.samples else None

    async def evaluate(self, state: ModelState) -> dict[str, float]:
        return self.trainer.evaluate(state) if self._evaluates else {}

    async def recompute(self, state: ModelState, peer: PeerId, samples: int) -> Vector | None:
        trainer = self._examine(peer)
        trainer.start_epoch(state)
        for _ in range(samples // BATCH):
            trainer.train_microbatch()
        return trainer.update()


class Attacker(Student):
    """Sends what its attack makes of all that the honest ones are about to send."""

    def __init__(self, forger: Forger, honest: Sequence[Student], *rest: Any, **options: Any) -> None:
        super().__init__(*rest, **options)
        self._forger, self._honest = forger, honest

    async def update(self) -> tuple[Vector, int] | None:
        made = await super().update()
        if made is None:
            return None
        own, weight = made
        await self._clock.sleep(STEP_SECONDS / 2)  # until they are done
        honest = [s.made for s in self._honest if s.epoch == self.epoch and s.made is not None and s.trainer.samples]
        return self._forger.update(self.epoch, own, honest or [own]), weight


class Careless(Exact):
    """Sends what is not finite, too; the owners look for themselves."""

    def encode(self, values: Vector) -> Payload:
        return memoryview(np.ascontiguousarray(values, "<f4").view(np.uint8).data)


def run(case: Case, whole: Dataset) -> Course:
    return play(case, whole)[0]


def play(case: Case, whole: Dataset) -> tuple[Course, ModelState]:
    """The course, and the state at its end."""
    return run_simulation(partial(_play, case, whole), case.seed)


async def _play(case: Case, whole: Dataset, network: SimulatedNetwork) -> tuple[Course, ModelState]:
    manifest = case.manifest()
    first, scratch = initial_state(manifest), FlatModel.of(manifest.model)

    def examine(peer: PeerId) -> Trainer:
        return Trainer(manifest, scratch, whole, peer)

    honest: list[Student] = []
    members: list[Participant] = []
    for number, indices in enumerate(shares(whole, case)):
        identity = case.identity(number)
        transport = network.join(identity.peer_id, client_mode=number >= OWNERS)
        trainer = case.trainer(number, FlatModel.of(manifest.model), whole, indices)
        if number < case.honest:
            student = Student(trainer, transport.clock, examine, evaluates=number == 0)
            honest.append(student)
        else:
            student = Attacker(Forger(case, number), honest, trainer, transport.clock, examine, evaluates=False)
        members.append(_participant(manifest, identity, network, transport, first, student, number))
        if number >= case.honest:
            members[-1]._plan = replace(members[-1]._plan, codec=Careless())
    course: dict[int, float] = {}
    watched, epoch, since, banned_by = members[0], 0, network.clock.monotonic(), None
    async with asyncio.TaskGroup() as tasks:
        running = []
        for member in members:
            await member.start()
            running.append(tasks.create_task(member.run()))
        while not all(member.finished and member.activity == "idle" for member in members[: case.honest]):
            await network.clock.sleep(LOOK_SECONDS)
            if watched.evaluated_epoch is not None:
                course[watched.evaluated_epoch] = watched.evaluation["accuracy"]
            if banned_by is None and len(watched.company.admission.banned) == PEERS - case.honest > 0:
                banned_by = watched.state.epoch
            if watched.state.epoch != epoch:
                epoch, since = watched.state.epoch, network.clock.monotonic()
            elif network.clock.monotonic() > since + BROKEN_SECONDS:
                break
        course[case.epochs] = (await honest[0].evaluate(watched.state))["accuracy"]
        for task in running:
            task.cancel()
    sound = members[: case.honest]
    banned = {frozenset(member.company.admission.banned) for member in sound}
    agree = len({member.state.digest for member in sound}) == len(banned) == 1
    return Course(course, agree, len(banned.pop()), banned_by), watched.state


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
