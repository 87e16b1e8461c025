"""One member of a run: joins, keeps the swarm's state, and plays epoch after epoch. Knows no files and no processes.

preparing a member without a state: what it needs to train may have to be fetched from the others
joining   finds the members, takes the state that most of them sign (`peer.sync`)
epoch     a `Session` trains and averages; its outcome makes the next state
watching  beside the epochs: should the others tell another history, or have gone on without us, back to joining
moving    in a pipeline: takes another stage, and joins those who serve it
paused    the organiser has said so: no training and no rounds until it resumes them
idle      the last epoch is reached: serves what others need

What the organiser directs (`peer.directives`) is carried out between two epochs: a step's optimizer is what the
directives say of its epoch, whenever they came.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import structlog

from dht.border import Border
from dht.interfaces import Records, Transport
from peer.catching_up import CatchingUp
from peer.company import Company
from peer.contents import ContentStore
from peer.description import Description
from peer.directives import Directives
from peer.epoch_pace import EpochPace
from peer.fellows import Fellows
from peer.joining import Joining, Restore
from peer.learner import Learner
from peer.membership import Membership
from peer.profile import Profile
from peer.rejections import Rejections
from peer.rounds.conversation import Conversation
from peer.rounds.levels import Levels
from peer.rounds.plan import Plan
from peer.rounds.results import FETCH_KIND, ResultStore
from peer.rounds.session import NeedsResync, RoundOutcome, Session
from peer.signal import Signal
from peer.streams import REQUEST_BYTES
from peer.sync import HEAD_KIND, Heads
from peer.tasks import beside
from peer.verification.checks import Checks
from peer.verification.inspector import Inspector
from protocols.awake import AwakeTime
from protocols.codecs import codec
from protocols.heads import HISTORY, Choice, History
from protocols.identity import PeerId
from protocols.manifest import DataParallel, Manifest, Pipeline
from protocols.optimizers import make_optimizer
from protocols.probation import Probation, room_for
from protocols.records import RosterEntry, Serving
from protocols.roles import TRAINING
from protocols.round.cells import mates
from protocols.round.deadlines import Timing
from protocols.round.machine import Phase
from protocols.round.messages import MAX_MEMBERS, UNMEASURED
from protocols.round.parts import Grid
from protocols.round.setting import Setting
from protocols.rules import DistanceRule, rule_of
from protocols.signed import Signer
from protocols.state import ModelState, advance
from protocols.suspension import Fault, Suspensions

WATCH_SECONDS = 1.0
LONGEST_WATCH_SECONDS = 8.0
"""Everybody asks everybody while something looks wrong: the longer nothing comes of it, the more seldom."""
CONTACTS = 4
"""With so many members at a time we keep in touch beside those of our cell, where rounds have two levels."""
GRACE_EVERY = 8
"""Every so many epochs the leader waits for who is late."""
FASTEST_LINK = 125e6
"""Bytes per second: what is faster is no link, and its measure tells how busy the processor was."""

MAX_ACQUAINTANCES = 4096
NO_STRAGGLERS = 1e6
"""Seconds: in a pipeline nobody who has counted a microbatch is left out because it is slow."""

State = Literal["joining", "syncing", "training", "averaging", "paused", "idle", "stopping"]

log = structlog.get_logger()


@dataclass(frozen=True)
class Place:
    """A stage of a pipeline as one of its peers begins there."""

    stage: int
    state: ModelState
    """What we have of it: a snapshot of ours, or where the run starts."""
    learner: Learner
    restore: Restore
    """Where to go on when nobody else is there."""


class Participant:
    levels: ClassVar[type[Levels]] = Levels

    def __init__(
        self,
        *,
        transport: Transport,
        records: Records,
        signer: Signer,
        manifest: Manifest,
        profile: Profile,
        state: ModelState,
        learner: Learner,
        rejections: Rejections,
        timing: Timing | None = None,
        on_round: Callable[[RoundOutcome], None] = lambda _outcome: None,
        prepare: Callable[[], Awaitable[Learner]] | None = None,
        directives: Iterable[bytes] = (),
        checks: type[Checks] = Checks,
        stage: int | None = None,
        serving: Callable[[int], Serving] | None = None,
    ) -> None:
        """`state`: where to start when nobody else is there (the initial one, or a snapshot of ours).

        `directives`: what was known of the organiser's at the last start, signed.

        `prepare` makes the learner that takes the place of `learner`, when it needs the other members for that.
        `rejections`: what `transport` counts with.
        `stage`: in a pipeline, whose `state` that is; `serving` says how this peer does there.
        """
        self.manifest, self.profile = manifest, profile
        self._serving = serving
        self._moving: Place | None = None
        """Where we are to go on."""
        self._restore: Restore | None = None
        """As long as we have not joined those who are where we have moved to."""
        self.state, self.learner = state, learner
        self.phase: State = "joining"
        self.evaluation: dict[str, float] = {}
        self.evaluated_epoch: int | None = None
        self.samples_contributed = self.epochs_played = 0
        self.last_round: tuple[int, RoundOutcome] | None = None
        self.largest_group = 0
        self.rejections = rejections
        self._on_round = on_round
        self._prepare = prepare
        self.changed = Signal()
        self.contents = ContentStore(transport.in_thread)
        self._border = Border(transport.peer_id, transport.clock, rejections)
        self._cells = manifest.averaging.cells
        self.company = Company(
            transport,
            records,
            signer,
            manifest,
            self._border,
            entry=self._entry,
            on_word=self._spoke,
            on_left=self._left,
            on_lost=self._not_heard,
            on_directed=self.changed.notify,
            on_banned=self.leave,
            directives=directives,
            contacts=CONTACTS if self._cells else None,
            mates=self._mates if self._cells else None,
        )
        self._transport, self._signer = transport, signer
        self._timing = _patient(timing or Timing()) if self._microbatches else timing or Timing()
        grid = Grid(state.parameter_count)
        self._results = ResultStore(self._fetched_from)
        rule, codec_ = rule_of(manifest.averaging), codec(manifest.averaging.codec)
        self.inspector = Inspector(
            transport,
            signer,
            manifest,
            codec_,
            rule,
            lambda: self._plan.grid,
            lambda: self.learner,
            lambda: [member.peer for member in self.membership.roster],
            self.company.ban,
            self._withheld,
            self._border,
            checks,
            client_mode=profile.client_mode,
        )
        self._conversation = Conversation(
            transport,
            signer,
            manifest,
            self._border,
            self.company.admission,
            self._state_in_rounds,
            grid.chunks,
            self.inspector.hear_statement,
        )
        self._plan = Plan(
            transport,
            signer,
            self._conversation.outbox,
            self._results,
            grid,
            codec_,
            rule,
            self.inspector,
            manifest.verification.validators > 0,
        )
        self._heads = Heads(transport, signer, self._border, self.company.admission.banned)
        self.fellows = Fellows(self.membership, self._heads, stage, keeps_in_touch=not self._cells)
        self._probation = Probation(manifest.admission.probation_epochs)
        self._joining = Joining(
            transport,
            self.company,
            self._heads,
            profile,
            self._probation if manifest.admission.probation_epochs else None,
        )
        self._acquaintances: dict[PeerId, None] = {}
        """Where rounds have two levels: who has been there in earlier epochs."""
        self._suspensions = Suspensions()
        self._awake = AwakeTime(transport.clock.monotonic(), 2 * WATCH_SECONDS)
        self._description = Description(profile, self.company)
        self._pace, self._catching_up = EpochPace(self._now()), CatchingUp(self._now())
        self._leaving = asyncio.Event()

    # -- life ---------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """From now on others are answered."""
        transport = self._transport
        await self.company.start()
        await self._conversation.start()
        await transport.serve_requests(HEAD_KIND, self._heads.answer)
        await transport.serve_streams(FETCH_KIND, self._results.serve, REQUEST_BYTES)
        await self.contents.serve(transport)
        await self.inspector.serve()

    async def run(self, max_epochs: int | None = None) -> None:
        """Takes part until `leave`, or for `max_epochs` epochs; then departs in order."""
        async with self.company.kept(), beside(self._conversation.run()), beside(self.inspector.run()):
            await self._take_part(max_epochs)
            self._enter("stopping")
            await self.membership.depart()

    def move(self, place: Place, *, at_once: bool) -> None:
        """Serve another stage once this epoch is over; or `at_once`, and lose what was counted of it."""
        self._moving = place
        self.changed.notify()
        if at_once and (session := self._session):
            session.stop()

    def leave(self) -> None:
        """Finish the round if one is under way, then depart."""
        self._leaving.set()

    def require(self, peer: PeerId) -> None:
        """Raises Rejected for who may not take part (not_admitted, banned)."""
        self.company.admission.require(peer, self._transport.clock.wall())

    @property
    def membership(self) -> Membership:
        return self.company.membership

    @property
    def stage(self) -> int | None:
        """In a pipeline, which one it serves."""
        return self.fellows.stage

    @property
    def directives(self) -> Directives:
        return self.company.directives

    @property
    def suspended(self) -> dict[PeerId, int]:
        """With whom we rather do without, and for how many epochs."""
        return self._suspensions.left(self.state.epoch)

    @property
    def paused(self) -> bool:
        """Whether the organiser has stopped the run at our epoch."""
        return self.directives.log.paused(self.state.epoch)

    @property
    def epochs_per_second(self) -> float:
        """How fast the swarm goes on, by the last epoch; 1 as long as there was none."""
        return self._pace.per_second

    @property
    def _session(self) -> Session | None:
        """The round that we play."""
        return self._conversation.session

    def _mates(self, peers: Iterable[PeerId]) -> list[PeerId]:
        """Where rounds have two levels: those of them that are in our cell."""
        return mates(self.state.digest, self._cells, self._transport.peer_id, peers)

    @property
    def quorum(self) -> int:
        """Of a group that begins a round now."""
        return self.manifest.quorum_without(len(self.company.admission.banned))

    @property
    def finished(self) -> bool:
        """Whether the run's last epoch is reached."""
        return self.state.epoch >= self.manifest.epochs

    @property
    def activity(self) -> State:
        """What it does now."""
        return "averaging" if self.round_phase not in (None, Phase.GATHERING) else self.phase

    @property
    def round_phase(self) -> Phase | None:
        """How far this epoch's round is; None while it plays no epoch."""
        session = self._session
        return session.machine.phase if self.phase == "training" and session is not None else None

    def counted_by(self, stage: int, epoch: int) -> bytes | None:
        """What our stage has counted of the epoch, by the word of whoever leads its round, if we know."""
        session = self._session if self.phase == "training" and stage == self.stage else None
        return session.counted if session is not None and session.epoch == epoch else None

    @property
    def _microbatches(self) -> int:
        """Of an epoch; 0 where the run is no pipeline."""
        training = self.manifest.training
        return training.microbatches if isinstance(training, Pipeline) else 0

    def _fetched_from(self) -> int | None:
        """The oldest epoch whose state somebody is fetching from us."""
        fetched = self.contents.fetched
        return min((epoch for epoch, digest in self._heads.history.items() if digest in fetched), default=None)

    def _state_in_rounds(self) -> ModelState | None:
        return None if self._microbatches and self.stage is None else self.state

    @property
    def averages(self) -> bool:
        """Whether it has a state, and takes part in rounds."""
        return self.profile.role != "monitor" and self._state_in_rounds() is not None

    @property
    def history(self) -> History:
        """Epoch → digest of our last states; empty as long as they are not the swarm's."""
        return self._heads.history

    @property
    def joined(self) -> bool:
        """Whether our state is the swarm's, as far as we know."""
        return bool(self._heads.history)

    def queues(self) -> Iterator[tuple[str, int, int]]:
        """What it keeps of others' words and work: what it is, how many, and how many at most."""
        yield from self._conversation.queues()
        yield "epochs of results", self._results.epochs, self._results.most_epochs
        yield "epochs of history", len(self._heads.history), HISTORY

    async def _take_part(self, max_epochs: int | None) -> None:
        if self._prepare is not None:
            await self._get_ready(self._prepare)
        while not self._leaving.is_set():
            if self._moving is not None:
                self._take(self._moving)
            elif not self.averages:
                self._enter("idle")
                await self._unless_leaving(self._until_placed())
            elif not self.joined:
                async with self._border.around("taking the swarm's state"):
                    await self._unless_leaving(self._join())
            elif self._played(max_epochs):
                return
            else:
                await self._play(max_epochs)

    async def _until_placed(self) -> None:
        """In a pipeline, until we are to serve a stage; else for ever."""
        while self._moving is None:
            await self.changed.wait()

    def _take(self, place: Place) -> None:
        log.info("serving another stage", stage=place.stage, before=self.stage)
        self._moving, self._restore = None, place.restore
        self.fellows.stage, self.state, self.learner = place.stage, place.state, place.learner
        self._plan = replace(self._plan, grid=Grid(place.state.parameter_count))
        self._conversation.inbox.chunks = self._plan.grid.chunks
        self._forget_rounds()
        self.membership.republish()

    def _forget_rounds(self) -> None:
        """Our state is not, or not any more, what we have played with."""
        self._signer.forget()
        self._heads.restart()
        self._results.clear()
        self._conversation.sessions.clear()
        self.fellows.group = {}

    def _played(self, max_epochs: int | None) -> bool:
        return max_epochs is not None and self.epochs_played >= max_epochs

    def _enter(self, phase: State) -> None:
        self.phase = phase
        self.changed.notify()

    async def _get_ready(self, prepare: Callable[[], Awaitable[Learner]]) -> None:
        """Until the learner is there, or we leave."""

        async def take_learner() -> None:
            self.learner = await prepare()

        async with beside(self._leaving.wait()) as leaving, beside(take_learner()) as preparing:
            await asyncio.wait([leaving, preparing], return_when=asyncio.FIRST_COMPLETED)

    # -- joining ------------------------------------------------------------------------------------------------------

    async def _join(self) -> None:
        """Takes the state that the swarm has; ours, when nobody has another, or none that counts more."""
        self._enter("syncing")
        found = await self._joining.find(self.state, self.fellows, self._restore)
        if found is None:
            return
        self._restore = None
        self.fellows.group, self.fellows.elders = found.group, found.elders
        await self._become(found.state)
        if self._cells:  # most others know us by our record alone
            self.membership.republish()
        if not found.fetched:
            await self.membership.greet()  # others may have begun in this moment, as we do

    def _withheld(self, peer: PeerId) -> None:
        """It does not show what it has made its part of; it may have restarted, so it is not proved to lie."""
        self._suspensions.settle(self.state.epoch, (), {peer: Fault.WITHHELD})

    async def _become(self, state: ModelState) -> None:
        """`state` is ours now, and we show it to others."""
        await self._transport.in_thread(lambda: state.digest)
        self.state = state
        self._heads.note(state)
        self.contents.put(state.index, state.buffers())
        self._pace.advance(self._now())
        self.membership.announce()
        self.changed.notify()

    # -- epochs -------------------------------------------------------------------------------------------------------

    async def _play(self, max_epochs: int | None) -> None:
        """Epoch after epoch, and after the last one idling, until we leave or the swarm's history is another."""
        try:
            async with beside(self._watch()):
                while not (self._leaving.is_set() or self.finished or self._played(max_epochs)):
                    if self._moving is not None:
                        return
                    if self.paused:
                        await self._unless_leaving(self._stand_still())
                    else:
                        await self._play_round()
                if self.finished and not self._played(max_epochs):
                    await self.learner.finish(self.state)
                    await self._evaluate(self.state)
                    self._enter("idle")
                    await self._leaving.wait()
        except NeedsResync as reason:
            log.info("taking the swarm's state anew", epoch=self.state.epoch, reason=str(reason))
            self._forget_rounds()

    @property
    def _trains(self) -> bool:
        return self.profile.role in ("trainer", "stage", "both")

    async def _play_round(self) -> None:
        if self._trains:
            await self.learner.begin(self.state)
        self._enter("training")
        began = self.membership.clock()
        outcome = await (self._play_levels() if self._cells else self._play_level())
        if outcome is not None:
            await self._go_on(outcome, began)
        elif not self._leaving.is_set():  # what others say of this epoch is kept until we play it anew
            self._conversation.sessions.forget(self.state.epoch)
            self._signer.forget()

    async def _play_level(self) -> RoundOutcome | None:
        """The round of an epoch that has one level."""
        fellows = self.fellows
        seniors = self._probation.seniors(self.state.epoch, fellows.group)
        electorate = [peer for peer in fellows.group if seniors is None or peer in seniors]
        self._heads.seniors = frozenset() if seniors is None else frozenset(electorate[:MAX_MEMBERS])
        return await self._finish_unless_stopped(
            self._new_session(
                setting=self._setting(seniors),
                expected=fellows.expected(self.state),
                audience=fellows.audience(),
                electorate=electorate or None,
                learner=self.learner,
                elders=() if fellows.group else fellows.elders,
                late=fellows.late(self.state.epoch),
            )
        )

    async def _play_levels(self) -> RoundOutcome | None:
        """Those of an epoch that has two."""
        levels = self._conversation.levels = self.levels(
            self._setting(None),
            self.fellows.client_modes,
            frozenset(self._acquaintances),
            self.learner,
            self._new_session,
            self._finish_unless_stopped,
            lambda: self._leaving.is_set() or self.paused,
        )
        try:
            return await levels.run()
        finally:
            self._acquaintances |= dict.fromkeys(self.fellows.client_modes())
            for peer in list(self._acquaintances)[:-MAX_ACQUAINTANCES]:
                del self._acquaintances[peer]

    def _new_session(self, **given: Any) -> Session:
        session = Session(self._plan, on_change=self.changed.notify, **given)
        self._conversation.sessions.open(session)
        return session

    def _setting(self, seniors: frozenset[PeerId] | None) -> Setting:
        training, admission = self.directives.log.training(self.state.epoch), self.manifest.admission
        return Setting(
            run=self.manifest.run_id,
            epoch=self.state.epoch,
            base=self.state.digest,
            me=self._transport.peer_id,
            target_samples=training.target_batch if isinstance(training, DataParallel | Pipeline) else None,
            chunks=self._plan.grid.chunks,
            microbatches=self._microbatches,
            group_limit=self.manifest.averaging.group_limit,
            quorum=self.quorum,
            weighs=isinstance(self._plan.rule, DistanceRule),
            byzantine=self.manifest.averaging.byzantine,
            cells=self._cells,
            client_mode=self.profile.client_mode,
            trains=self._trains,
            speed=max(UNMEASURED, min(self.profile.bandwidth(), FASTEST_LINK)),
            seniors=seniors,
            newcomers_share=admission.probation_share,
            suspended=frozenset(self.suspended),
            not_owning=self._suspensions.not_owning(self.state.epoch),
            grace=self._grace(),
            timing=self._timing,
        )

    async def _go_on(self, outcome: RoundOutcome, began: float) -> None:
        """To the next epoch, from what the rounds of this one have given, which began then."""
        self._joining.in_step()
        base = self.state
        self.inspector.inspect(outcome.done, outcome.account, base)
        optimizer = make_optimizer(self.directives.log.training(base.epoch).outer, self.manifest.epochs)
        state = await self._transport.in_thread(advance, base, outcome.aggregate, optimizer)
        self.samples_contributed += outcome.weight
        self.epochs_played += 1
        self.last_round = (base.epoch, outcome.without_aggregate())
        self._on_round(outcome)
        sessions = self._conversation.sessions.of(base.epoch)
        self.fellows.group = {peer: session.client_mode_of(peer) for session in sessions for peer in session.members}
        self.largest_group = max(self.largest_group, *(len(session.members) for session in sessions))
        self._probation.count(base.epoch, outcome.done.body.members)
        self._settle(sessions, began)
        is_last = state.epoch >= self.manifest.epochs
        if self._trains and (is_last or state.epoch % self.manifest.evaluation.every_epochs == 0):
            await self._evaluate(state)
        await self._become(state)
        log.debug("epoch", epoch=state.epoch, seconds=round(outcome.duration_seconds, 3))

    def _settle(self, sessions: Iterable[Session], began: float) -> None:
        """What is to be remembered of the members after the rounds of an epoch, which began then.

        Who was dead, or not yet back, is at no fault.
        """
        epoch, members = self.state.epoch, list(self.fellows.group)
        faults: dict[PeerId, Fault] = {}
        for session in sessions:
            faults |= {p: fault for p, fault in session.faults.items() if self.membership.is_at(p, epoch, began)}
        for peer in self._suspensions.settle(epoch, members, faults):
            left = self._suspensions.left(epoch + 1)[peer]
            log.info("suspended", peer=peer, fault=str(faults[peer]), epochs=left)
        [setting, *_] = [session.setting for session in sessions]
        newcomers = sum(setting.is_newcomer(peer) for peer in members)
        seniors = len(members) - newcomers
        if newcomers > room_for(setting.newcomers_share, seniors, setting.quorum, setting.group_limit):
            log.info("more newcomers in a group than is their share", epoch=epoch, newcomers=newcomers, seniors=seniors)

    async def _unless_leaving(self, work: Coroutine[Any, Any, None]) -> None:
        """Until it is done, or we leave."""
        async with beside(self._leaving.wait()) as leaving, asyncio.TaskGroup() as tasks:
            working = tasks.create_task(work)
            await asyncio.wait([working, leaving], return_when=asyncio.FIRST_COMPLETED)
            working.cancel()

    async def _finish_unless_stopped(self, session: Session) -> RoundOutcome | None:
        """The outcome; None when we leave, or the run is paused, while the epoch still trains, or the round does not
        come to its end then."""

        async def stop_when_leaving() -> None:
            await self._leaving.wait()
            session.stop()

        async def stop_when_paused() -> None:
            while not self.paused:
                await self.directives.changed.wait()
            session.stop()

        async with beside(stop_when_leaving()), beside(stop_when_paused()):
            return await session.run()

    async def _stand_still(self) -> None:
        """Until the organiser resumes the run."""
        log.info("the organiser has paused the run", epoch=self.state.epoch)
        self._enter("paused")
        while self.paused:
            await self.directives.changed.wait()
        log.info("the organiser has resumed the run", epoch=self.state.epoch)
        self._pace.resume(self._now())

    def _grace(self) -> float:
        """For who is late: now and then as long as an epoch takes, which is all that a liar can cost us."""
        return min(self._pace.seconds, self._timing.straggler) if self.state.epoch % GRACE_EVERY == 0 else 0.0

    async def _evaluate(self, state: ModelState) -> None:
        """A pipeline is evaluated through all its stages: `peer.swarm.evaluator`."""
        if self._microbatches or self.profile.role not in TRAINING or self.evaluated_epoch == state.epoch:
            return
        self.note_evaluation(state.epoch, await self.learner.evaluate(state))

    def note_evaluation(self, epoch: int, metrics: dict[str, float]) -> None:
        """What an evaluation of that epoch's state has given."""
        self.evaluation, self.evaluated_epoch = metrics, epoch
        self.changed.notify()

    # -- watching -----------------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Raises NeedsResync when the swarm's history is not ours, or has gone on without us."""
        asked_at, pause = float("-inf"), WATCH_SECONDS
        while True:
            await self._transport.clock.sleep(WATCH_SECONDS)
            now = self._now()  # looked at every second, or we did not run
            epoch, session = self.state.epoch, self._session
            came = session.catching_up if session else None
            self._catching_up.look(epoch, came, now, ahead=self.fellows.any_ahead(epoch))
            if session and not session.setting.is_of_cells:
                session.tell_also(self.fellows.audience())
            if self._conversation.levels is not None:
                self._conversation.levels.look_around()
            unexplained = self.fellows.any_unexplained(len(self.company.admission.banned))
            if not (unexplained or self._catching_up.is_left_behind(now)):
                pause = max(WATCH_SECONDS, pause / 2)  # not at once: who lies now and then is no better
                continue
            if now < asked_at + pause:
                continue
            asked_at, pause = now, min(2 * pause, LONGEST_WATCH_SECONDS)
            believed = self._joining.believed(self.fellows.peers)
            if (choice := await self._heads.choose(believed, companions=self.fellows.companions)) is not None:
                self.company.ban_all(choice.banned)
                self._compare(choice)

    def _compare(self, choice: Choice) -> None:
        if self._transport.peer_id not in choice.tellers:
            raise NeedsResync("most members tell another history")
        behind = choice.epoch - self.state.epoch
        if self._catching_up.is_lost(behind, self._pace.began_at, self._now()):
            raise NeedsResync(f"the swarm is {behind} epochs ahead")

    def _now(self) -> float:
        return self._awake.at(self._transport.clock.monotonic())

    # -- what others say ----------------------------------------------------------------------------------------------

    def _entry(self) -> tuple[RosterEntry, int]:
        entry = self._description.entry(
            state_digest=self._heads.history.get(self.state.epoch),
            samples_contributed=self.samples_contributed,
            samples_per_second=self.learner.samples_per_second,
            serving=self._serving(self.stage) if self._serving is not None and self.stage is not None else None,
        )
        return entry, self.state.epoch

    def _spoke(self, peer: PeerId, new: bool) -> None:
        """It has said where it is: who is where we are plays this epoch with us, however far we have come with it."""
        session, member = self._session, self.membership.roster.get(peer)
        if session and member and member.plays(self.state.epoch, self.state.digest):
            session.find({peer: member.entry.client_mode})
        elif session and member and session.setting.is_of_one_cell and member.epoch > self.state.epoch:
            self._conversation.ask_what_was_decided(peer, client_mode=self.profile.client_mode)
        if new:
            self.changed.notify()

    def _left(self, peer: PeerId) -> None:
        self.fellows.group.pop(peer, None)
        if session := self._session:
            session.leave(peer)
            session.need(self.quorum)
        self.changed.notify()

    def _not_heard(self, peer: PeerId) -> None:
        """It keeps its say in what we do next: rather it is cut off than dead, and so may we be."""
        self._conversation.lose(peer)
        self.changed.notify()


def _patient(timing: Timing) -> Timing:
    return replace(timing, straggler=NO_STRAGGLERS, slack=NO_STRAGGLERS)
