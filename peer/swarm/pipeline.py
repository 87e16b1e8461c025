"""A peer of a pipeline: its participant plays the rounds of the stage that it serves, beside that it serves trainers,
and trains itself.

Who serves no stage is a participant without a state. A stage is taken in three steps: its newest state is found, the
server takes its microbatches, and the participant joins those who serve it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import suppress
from random import Random

import structlog

from dht.border import Border
from dht.interfaces import Transport
from peer.data.asking import Evaluate, evaluate
from peer.data.dataset import Dataset
from peer.participant import Participant, Place
from peer.roster import Member
from peer.saving import keep_saving
from peer.swarm.arbiter import Arbiter
from peer.swarm.claims import Surroundings
from peer.swarm.client import StageClient
from peer.swarm.evaluator import Evaluator
from peer.swarm.factory import StageFactory
from peer.swarm.gathering import Gathering, Own, Whole
from peer.swarm.inspector import AnswerInspector
from peer.swarm.keeper import BoardKeeper
from peer.swarm.previous import PreviousParameters
from peer.swarm.recomputation import Recomputation
from peer.swarm.recovery import Recovery
from peer.swarm.restoring import Others, Restorer
from peer.swarm.router import Router
from peer.swarm.server import StageServer
from peer.swarm.spot_checks import SpotChecks
from peer.swarm.stage import Stage
from peer.swarm.trainer import PipelineTrainer
from peer.sync import Heads
from protocols.encoding import digest
from protocols.identity import PeerId
from protocols.records import Serving
from protocols.roles import TRAINING
from protocols.round.order import order
from protocols.signed import Signer
from protocols.state import ModelState
from protocols.swarm.agreement import tolerance_of
from protocols.swarm.messages import Coverage
from protocols.swarm.movers import Movers
from protocols.swarm.rebalance import Load, neediest_stage, next_move
from protocols.swarm.wiring import Wiring

DECIDE_SECONDS = 2.0
"""How often a peer asks itself whether it is needed at another stage."""
SMOOTHING = 0.05
"""Weight of the newest microbatch in the loss that is shown."""

log = structlog.get_logger()


class PipelinePeer:
    def __init__(
        self,
        transport: Transport,
        signer: Signer,
        factory: StageFactory,
        participant: Participant,
        server: StageServer,
        border: Border,
        open_data: Callable[[], Awaitable[Dataset]],
        *,
        stage: int | None = None,
        quota_bytes: int = 2**40,
        evaluate: Evaluate = evaluate,
    ) -> None:
        """`stage`: the one to serve, and no other; None: where it is needed most."""
        manifest, self._training = factory.manifest, factory.training
        self.participant, self.server = participant, server
        self.moving_to: int | None = None
        self.trainer: PipelineTrainer | None = None
        self._transport, self._factory, self._border, self._open_data = transport, factory, border, open_data
        self._fixed, self._since, self._evaluate = stage, 0.0, evaluate
        self._movers = Movers()
        self._client = StageClient(transport, signer, self._training.codec, server)
        seed = int.from_bytes(digest(transport.peer_id.encode())[:8], "big")
        self.wiring = Wiring(Random(seed).random)  # noqa: S311  (which of equal peers comes first)
        self.keeper = BoardKeeper(
            transport,
            self._training,
            self._serving_peers,
            self.trainers,
            self._own_coverage,
            participant.require,
            border,
        )
        self._router = Router(transport, self._client, self.wiring, self._peers_by_stage)
        others = Others(lambda: [member.peer for member in self._members()], self._peers_at)
        self._restorer = Restorer(
            transport, signer, factory, participant.contents, others, border, quota_bytes, participant.require
        )
        self._previous = PreviousParameters(
            transport, signer, participant.contents, self._peers_at, lambda: self.server.stage, factory.saved, border
        )
        tolerance = tolerance_of(manifest.verification.tolerance, self._training.codec)
        recomputation = Recomputation(
            transport, signer, factory, self._previous, self._peers_at, lambda: self.server.stage, border, tolerance
        )
        arbiter = Arbiter(self._router, recomputation, signer, tolerance)
        self.inspector = AnswerInspector(
            transport,
            signer,
            factory,
            arbiter,
            recomputation,
            lambda: [member.peer for member in self._members()],
            participant.require,
            participant.company.ban,
            border,
        )
        self.spot_checks = SpotChecks(self._router, arbiter, self.inspector, signer, self._training.spot_checks)
        self._manifest = manifest
        self._heads = Heads(transport, signer, border)

    # -- life --------------------------------------------------------------------------------------------------------

    async def serve(self) -> None:
        """From now on others are answered."""
        await self.server.serve()
        await self.keeper.serve()
        await self._restorer.serve()
        await self._previous.serve()
        if self._training.spot_checks:
            await self.inspector.serve()

    async def run(self) -> None:
        """Until cancelled."""
        role = self.participant.profile.role
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.server.run())
                tasks.create_task(self.keeper.run())
                tasks.create_task(self.inspector.run())
                if role in ("stage", "both") and not self.participant.profile.client_mode:  # else nobody can dial us
                    await self._settle()
                    tasks.create_task(self._keep_balance())
                    tasks.create_task(self._previous.keep_fetched())
                    tasks.create_task(self._restorer.keep_foreign(lambda: self.participant.stage))
                if role in TRAINING:
                    tasks.create_task(self._train())
        finally:
            await self._client.close()

    async def _train(self) -> None:
        dataset = await self._open_data()
        self.trainer = PipelineTrainer(
            self._transport,
            self._manifest,
            dataset,
            self.spot_checks,
            self._client,
            self.keeper,
            Surroundings(self._dialable, self.trainers, self._epoch_of_all, self.participant.directives.log.paused),
            self._border,
            self._observe,
        )
        evaluator = Evaluator(
            self._transport,
            self._manifest,
            dataset,
            self._client,
            epoch=self._epoch_of_all,
            peers=self._peers_by_stage,
            evaluator=self.evaluator,
            evaluate=self._evaluate,
            note=self.participant.note_evaluation,
            border=self._border,
        )
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.trainer.run())
            tasks.create_task(evaluator.run())

    def _observe(self, loss: float) -> None:
        """Of a microbatch of ours."""
        learner = self.participant.learner
        learner.loss = loss if learner.loss is None else learner.loss + (loss - learner.loss) * SMOOTHING

    @property
    def stages(self) -> int:
        return self._training.stages

    def serving(self, stage: int) -> Serving:
        """What the roster says of us."""
        return Serving(
            stage=stage,
            rate=self.rate,
            queue=self.server.queue,
            moving_to=self.moving_to,
            stays=self._fixed is not None,
        )

    @property
    def rate(self) -> float:
        """Microbatches per second that we can deliver: as fast as we compute, and as our line carries the answers.

        0: not known.
        """
        held, line = self.server.stage, self.participant.profile.bandwidth()
        computed = held.rate if held is not None else 0.0
        answers = self.server.answer_bytes.get("forward", 0) + self.server.answer_bytes.get("backward", 0)
        return min(computed, line / answers) if line and answers else computed

    async def save(self, *, last: bool = False) -> None:
        """Our stage's newest state, on disk."""
        if (state := self._newest()) is not None:
            await self._save(state, last=last)

    async def keep_saving(self) -> None:
        """Until cancelled."""
        await keep_saving(self._save, self._newest, self.participant.changed)

    async def _save(self, state: ModelState, *, last: bool = False) -> None:
        if self.participant.stage is not None:
            await self._factory.save(self.participant.stage, state, last=last)

    def _newest(self) -> ModelState | None:
        """None before it is the swarm's, and without a stage."""
        participant = self.participant
        return participant.state if participant.stage is not None and participant.joined else None

    async def gather(self) -> Whole:
        """The whole model, of all who serve its stages. Raises PeerError."""
        gathering = Gathering(self._transport, self._manifest, self._heads, self._others_by_stage, self._own)
        return await gathering.gather()

    async def _others_by_stage(self) -> dict[int, list[PeerId]]:
        return {stage: list(self._peers_at(stage)) for stage in range(self._training.stages)}

    def _own(self) -> Own | None:
        participant = self.participant
        if participant.stage is None or not participant.joined:
            return None
        return Own(self._transport.peer_id, participant.stage, participant.history, participant.contents)

    # -- taking a stage ----------------------------------------------------------------------------------------------

    async def _settle(self) -> None:
        """At the start."""
        await self.participant.membership.introduce()
        stage = self._fixed
        if stage is None:
            loads = self._loads()
            stage = neediest_stage(loads, self._training.stages) if loads else self._first_choice()
        await self._take(stage, at_once=True)

    def _first_choice(self) -> int:
        """Where nobody is yet; those who start together spread."""
        return digest(self._transport.peer_id.encode())[0] % self._training.stages

    async def _take(self, number: int, *, at_once: bool) -> None:
        self.moving_to = number
        self.participant.membership.republish()
        try:
            state = await self._kept(number)
            stage: Stage = await self._transport.in_thread(self._factory.make, number)
            await self._arrive(Place(number, state, stage, self._recovery(number)), at_once=at_once)
            before, self._since = self.server.stage, self._transport.clock.monotonic()
            self.server.take(stage, self._factory.accepted(number))
            if before is not None:
                await before.close()
        finally:
            self.moving_to = None
            self.participant.membership.republish()

    async def _arrive(self, place: Place, *, at_once: bool) -> None:
        """At the place, once this epoch is over; at once when nobody is there any more, for then none ends."""
        participant = self.participant
        participant.move(place, at_once=at_once)
        while participant.stage != place.stage:
            with suppress(TimeoutError):
                async with asyncio.timeout(DECIDE_SECONDS):
                    await participant.changed.wait()
            if not (at_once or self._serves(place.stage)):
                at_once = True
                participant.move(place, at_once=True)

    async def _kept(self, number: int) -> ModelState:
        """What is here of a stage, whose peers will tell us more."""
        saved: ModelState | None = await self._transport.in_thread(self._factory.saved, number)
        first: ModelState | None = None if saved else await self._transport.in_thread(self._factory.first, number)
        ours = saved or first
        assert ours is not None
        return ours

    def _recovery(self, number: int) -> Recovery:
        def others() -> list[int]:
            return [epoch for stage, epoch in self._stage_epochs().items() if stage != number]

        return Recovery(number, self._restorer, others, self._transport.clock)

    def _epoch_of_all(self) -> int:
        """That all stages have come to which somebody serves."""
        epochs, participant = self._stage_epochs(), self.participant
        if participant.stage is not None and participant.joined:
            epochs[participant.stage] = max(participant.state.epoch, epochs.get(participant.stage, 0))
        return min(epochs.values(), default=0)

    # -- balance -----------------------------------------------------------------------------------------------------

    async def _keep_balance(self) -> None:
        """Moves where we are needed more, unless we were told where to be."""
        while True:
            await self._transport.clock.sleep(DECIDE_SECONDS)
            if self._fixed is not None or self.participant.finished:
                continue
            async with self._border.around("looking where we are needed"):
                move = await self._transport.in_thread(next_move, self._loads(), self._training.stages)
                self._movers.call(move.peer if move is not None else None)
                if move is not None and move.peer == self._transport.peer_id:
                    log.info("moving to another stage", source=move.source, target=move.target)
                    await self._take(move.target, at_once=not self._serves(move.target))

    def _loads(self) -> list[Load]:
        """Of all peers who serve a stage, as they say and as far as it is believed."""
        now = self._transport.clock.monotonic()
        said = [_load(member.peer, member.entry.serving) for member in self._members() if member.entry.serving]
        loads = [load for load in self._movers.believed(said, now) if not self.wiring.is_failing(load.stage, load.peer)]
        if self.participant.stage is not None:
            since = now - self._since
            loads.append(_load(self._transport.peer_id, self.serving(self.participant.stage), since))
        return loads

    # -- the others --------------------------------------------------------------------------------------------------

    def _members(self) -> Iterator[Member]:
        """But those who say to serve a stage that there is not."""
        roster, stages = self.participant.membership.roster, self._training.stages
        return (member for member in roster if member.entry.stage is None or member.entry.stage < stages)

    def _stage_epochs(self) -> dict[int, int]:
        """As `Roster.stage_epochs`."""
        epochs = self.participant.membership.roster.stage_epochs()
        return {stage: epoch for stage, epoch in epochs.items() if stage < self._training.stages}

    def _peers_at(self, stage: int) -> Iterable[PeerId]:
        return [member.peer for member in self._members() if member.entry.stage == stage]

    def _serves(self, stage: int) -> bool:
        """Whether somebody else does, by more than a word."""
        return any(not self.wiring.is_failing(stage, peer) for peer in self._peers_at(stage))

    def _serving_peers(self) -> Iterable[PeerId]:
        return [member.peer for member in self._members() if member.entry.stage is not None]

    def _peers_by_stage(self) -> dict[int, list[PeerId]]:
        """Us among them."""
        peers: dict[int, list[PeerId]] = {}
        for member in self._members():
            if member.entry.stage is not None and not member.entry.client_mode:
                peers.setdefault(member.entry.stage, []).append(member.peer)
        if self.server.stage is not None:
            peers.setdefault(self.server.stage.number, []).append(self._transport.peer_id)
        return peers

    def trainers(self) -> list[PeerId]:
        """Who begins microbatches, and evaluates."""
        us = [self._transport.peer_id] if self.participant.profile.role in TRAINING else []
        return us + [member.peer for member in self._members() if member.entry.role in TRAINING]

    def evaluator(self, epoch: int) -> PeerId | None:
        """Which of them evaluates that epoch's state, as things are now."""
        return next(iter(order(self._manifest.run_id, epoch, self.trainers())), None)

    def _dialable(self) -> list[PeerId]:
        """Who may keep the board."""
        return [peer for peers in self._peers_by_stage().values() for peer in peers]

    def _own_coverage(self) -> Coverage | None:
        stage = self.server.stage
        return self.server.coverage(stage) if stage is not None and stage.ready.is_set() else None


def _load(peer: PeerId, serving: Serving, since: float = 1e9) -> Load:
    return Load(
        peer=peer,
        stage=serving.stage,
        rate=serving.rate,
        queue=serving.queue,
        moving_to=serving.moving_to,
        since=since,
        stays=serving.stays,
    )
