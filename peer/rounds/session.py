"""One epoch of one peer: carries out what the round's state machine asks for, and tells it what happened."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import structlog

from dht.interfaces import Stream
from peer.learner import Learner
from peer.rounds.parts import Parts
from peer.rounds.plan import Plan
from peer.rounds.post import ELSEWHERE
from peer.tasks import beside
from peer.verification.account import RoundAccount
from peer.verification.seed_secrets import SeedSecrets
from protocols.identity import PeerId
from protocols.message import Message
from protocols.rejection import Reason, Rejected
from protocols.round.checks import check_term
from protocols.round.claims import open_claim
from protocols.round.events import (
    Action,
    Aimed,
    Appeared,
    Apply,
    Astray,
    Decided,
    Discard,
    Elsewhere,
    Event,
    Exchange,
    Fetch,
    FinishUpdate,
    Found,
    Heard,
    Left,
    Lost,
    Needed,
    Redirect,
    Relay,
    Represent,
    Resync,
    Send,
    Tick,
    UpdateReady,
    Weighed,
)
from protocols.round.machine import Phase, Round
from protocols.round.messages import (
    Begin,
    Contribution,
    Done,
    Member,
    PartResult,
    Reassign,
    Result,
    Standing,
    Wait,
    Weigh,
)
from protocols.round.reduction import EncodedUpdate
from protocols.round.setting import Setting
from protocols.round.weighing import open_weigh
from protocols.signed import Signed, open_signed
from protocols.suspension import Fault
from protocols.vectors import Vector

TICK_SECONDS = 0.2
STOP_FACTOR = 1.5
"""Who leaves finishes a round that does not take longer than so many times `Timing.failure`."""

log = structlog.get_logger()

Said = dict[int, Signed[Message]]
"""What was signed while one event was handled, by the `id` of its body: what is said to many is signed once. If it is
said again, it is signed anew, for who has heard it takes it for a replay."""


@dataclass(frozen=True, slots=True)
class RoundOutcome:
    """What a round came to, as this peer saw it."""

    aggregate: Vector
    done: Signed[Done]
    duration_seconds: float
    """From the close of the epoch's training to its results."""
    weight: int
    """Samples that this peer has contributed."""
    bytes_sent: int
    bytes_received: int
    recovered_parts: int
    missing_senders: int
    group: tuple[Member, ...] = ()
    """The members and their samples, as our leader has named them; empty where we have missed that."""
    account: RoundAccount | None = None
    """Where members check each other, and this one was there."""
    begin: bytes = b""
    """In a pipeline: wire bytes of the `Begin` under which it was reduced, if we know: it says who has counted what."""

    def without_aggregate(self) -> "RoundOutcome":
        """To keep: the aggregate is as large as the model."""
        return replace(self, aggregate=np.empty(0, np.float32), account=None)


class NeedsResync(Exception):
    """The results of the epoch were decided, but cannot be had any more."""


class Session:
    def __init__(
        self,
        plan: Plan,
        setting: Setting,
        expected: Mapping[PeerId, bool],
        audience: Iterable[PeerId],
        electorate: Iterable[PeerId] | None,
        learner: Learner,
        on_change: Callable[[], None] = lambda: None,
        elders: Iterable[PeerId] = (),
        late: Iterable[PeerId] = (),
        followers: Iterable[PeerId] = (),
        check: Callable[[PeerId, Contribution], None] = lambda _peer, _contribution: None,
    ) -> None:
        """`expected`, `audience`, `electorate`, `elders` and `late` as in `Round`.

        `followers`: whom we tell what is decided, beside those whom the leader tells.
        `check` raises Rejected for what a member must not contribute.
        """
        self.plan, self.setting, self.learner = plan, setting, learner
        self.machine = Round(setting, expected, self._now(), audience, electorate, elders, late)
        self._asked: asyncio.Queue[Action | None] = asyncio.Queue()
        """What the machine has asked for and is not carried out; None: it is time to leave."""
        self._parts = Parts(plan, setting, self.machine.begun, check, self._take, self._spawn)
        self._closing = asyncio.Event()
        self._committing = asyncio.Lock()
        self._closed_at: float | None = None
        self._secrets = SeedSecrets(plan.signer, setting.epoch, setting.base, setting.me)
        self._tasks: asyncio.TaskGroup | None = None
        """While it is played."""
        self._running: list[asyncio.Task[None]] = []
        self._on_change = on_change
        self._stop_at: float | None = None
        """When we leave, whatever has come of the round by then."""
        self._over = False
        self._followers = list(followers)
        self.is_asked_to_represent = False
        """Nobody else of our cell does (`Represent`); it has ended with that."""

    @property
    def epoch(self) -> int:
        return self.setting.epoch

    @property
    def catching_up(self) -> int | None:
        """Once this epoch's results are decided: how many bytes of them have come; None before."""
        return self._parts.traffic.received if self.machine.done is not None else None

    @property
    def counted(self) -> bytes | None:
        """As `Round.counted`."""
        return self.machine.counted(self._now())

    @property
    def averaging(self) -> bool:
        return self.machine.phase is not Phase.GATHERING

    # -- what others do to it -----------------------------------------------------------------------------------------

    def hear(self, statement: Signed[Message], shown_by: PeerId, *, asks: bool) -> bytes:
        """A verified message of this epoch; also after the session is over, to answer those who come late.

        Returns what to answer to who has shown it, if it `asks`, or else nothing; ELSEWHERE when it continues another
        history. Raises Rejected (unexpected).
        """
        if getattr(statement.body, "base", self.setting.base) != self.setting.base:
            return ELSEWHERE
        if not self._admits(statement):
            return ELSEWHERE
        if not self.setting.follows:  # it has none
            check_term(statement.body, self.machine.term)
        self._secrets.check(statement.body)
        return self._take(self._heard(statement, shown_by), shown_by if asks else None)

    def _admits(self, statement: Signed[Message]) -> bool:
        """Whether its sender, and all whom it names, may take part. Raises Rejected (unexpected)."""
        body = statement.body
        named = [member.peer for member in body.members] if isinstance(body, Begin) else []
        named += body.members if isinstance(body, Done) else []
        if not all(map(self.setting.admits, named)):
            raise Rejected(Reason.UNEXPECTED, f"{body.kind}: names a member of another cell")
        if self.setting.is_of_cells and isinstance(body, Done) and not self.setting.are_of_different_cells(named):
            raise Rejected(Reason.UNEXPECTED, f"{body.kind}: names two members of one cell")
        return self.setting.admits(statement.sender)

    def _heard(self, statement: Signed[Message], relayed_by: PeerId | None = None) -> Heard:
        """What it carries is verified; of a `Weigh`, which has many signatures, only our leader's. Raises Rejected."""
        opens = isinstance(statement.body, Weigh) and statement.sender == self.machine.leader
        observed = open_weigh(statement) if opens else ()  # type: ignore[arg-type]
        return Heard(statement, relayed_by, open_claim(statement, self.plan.grid.chunks), observed)

    def find(self, peers: Mapping[PeerId, bool]) -> None:
        """They are where we are, and in client mode or not. Who represents a cell shows itself, in its round."""
        if self._over or self.setting.is_of_cells:
            return
        known = self.machine.peers
        new = {
            peer: client_mode
            for peer, client_mode in peers.items()
            if (peer not in known or known[peer].client_mode != client_mode) and self.setting.admits(peer)
        }
        if new:
            self._take(Found(new))

    def tell_also(self, peers: Iterable[PeerId]) -> None:
        """`peers` are in the roster now. Who represents a cell shows itself, in its round."""
        if self.setting.is_of_cells:
            return
        appeared = frozenset(self.setting.admitted(peers)) - self.machine.audience
        if appeared and not self._over:
            self._take(Appeared(appeared))

    def aim(self, samples: int) -> None:
        """The epoch closes at so many, as far as we know now."""
        if not self._over and samples != self.machine.tally.target:
            self._take(Aimed(samples))

    def need(self, quorum: int) -> None:
        """So many make a group, as far as we know now."""
        if not self._over and quorum != self.machine.quorum:
            self._take(Needed(quorum))

    def lose(self, peer: PeerId) -> None:
        """`peer` cannot be reached."""
        self._forget(peer, Lost(peer))

    def leave(self, peer: PeerId) -> None:
        """`peer` has departed."""
        self._forget(peer, Left(peer))

    def mistrust(self, peer: PeerId) -> None:
        """It has signed a `Begin` of this round that no honest leader signs."""
        if not self._over:
            self._take(Astray(peer))

    def miss(self, peer: PeerId) -> None:
        """`peer` is in another epoch or history."""
        self._forget(peer, Elsewhere(peer))

    def _forget(self, peer: PeerId, event: Lost | Left | Elsewhere) -> None:
        if not self._over:
            self._take(event)
        self._parts.forget(peer)

    def stop(self) -> None:
        """End the epoch if it is still training; a round that is under way is finished, unless it takes too long."""
        self._stop_at = self._now() + STOP_FACTOR * self.setting.timing.failure
        self._leave_if_stopped()

    def abandon(self) -> None:
        """End at once, whatever has come of it."""
        self._stop_at = self._now()
        self._leave_if_stopped()

    def _leave_if_stopped(self) -> None:
        if self._stop_at is None or self._over:
            return
        if self.machine.phase is Phase.GATHERING or self._now() >= self._stop_at:
            self._asked.put_nowait(None)

    def client_mode_of(self, peer: PeerId) -> bool:
        known = self.machine.tally.own if peer == self.setting.me else self.machine.peers.get(peer)
        return known is not None and known.client_mode

    @property
    def members(self) -> tuple[PeerId, ...]:
        """Of the group that has decided; nobody before that."""
        return self.machine.done.body.members if self.machine.done is not None else ()

    @property
    def faults(self) -> dict[PeerId, Fault]:
        """Who has kept the round waiting, as far as we have seen it ourselves."""
        faults = self._parts.faults | dict(self.machine.faults)
        return {peer: fault for peer, fault in faults.items() if peer != self.setting.me}

    async def serve_part(self, stream: Stream, statement: Signed[Contribution]) -> None:
        """A member's stream to a part that we own. Raises Rejected, Unreachable."""
        await self._parts.serve(stream, statement)

    # -- the epoch ----------------------------------------------------------------------------------------------------

    async def run(self) -> RoundOutcome | None:
        """Trains, averages, and returns what everybody applies; None when stopped before that. Raises NeedsResync."""
        try:
            async with beside(self._train()), beside(self._tick()), asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                outcome = await self._play()
                for task in self._running:
                    task.cancel()
            return outcome
        finally:
            self._over = True
            self._parts.clear()

    def release(self) -> None:
        """The next epoch has begun: messages are still answered, and open streams served to their end."""
        self._parts.release()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Beside what is played; ends with it."""
        assert self._tasks is not None
        self._running.append(task := self._tasks.create_task(work))
        return task

    async def _play(self) -> RoundOutcome | None:
        while (action := await self._asked.get()) is not None:
            match action:
                case FinishUpdate(term):
                    self._closed_at = self._now()
                    self._closing.set()
                    if self.setting.microbatches:
                        self._spawn(self._commit_for(term))
                    self._on_change()
                case Discard(covered):
                    self._spawn(self.learner.give_way(covered))
                case Exchange(begin):
                    self.plan.checking.follow(member.peer for member in begin.members)
                    self._parts.begin(begin)
                case Redirect(part, attempt, owner):
                    self._parts.start(part, attempt, owner)
                case Weighed(term, observed):
                    self._parts.weigh(term, observed)
                case Fetch():
                    self._parts.fetch(action)
                case Decided(done):
                    self._decided(done)
                case Apply(results):
                    return await self._finish(results)
                case Resync():
                    raise NeedsResync(f"the results of round {self.epoch} cannot be had any more")
                case Represent():
                    self.is_asked_to_represent = True
                    return None
        return None

    def _take(self, event: Event, asker: PeerId | None = None) -> bytes:
        """Has the machine handle it, and says at once what is to be said; the rest is for `_play`.

        Returns what answers the message of `asker`: how it stands here, if that is what it is told.
        """
        answer = b""
        events = deque([event])
        while events:
            said: Said = {}
            for action in self.machine.handle(events.popleft(), self._now()):
                match action:
                    case Send(to, Standing() | Wait() as body) if to == asker and not answer:
                        answer = self.plan.signer.sign(body, self.epoch).wire
                    case Send() | Relay():
                        if (heard := self._say(action, said)) is not None:
                            events.append(heard)
                    case _ if not self._over:
                        self._asked.put_nowait(action)
            self._leave_if_stopped()
        return answer

    def _decided(self, done: Signed[Done]) -> None:
        self.plan.results.keep_only(self.epoch, done.body.results)
        for peer in self._followers:
            self.plan.outbox.relay(peer, done)

    def _say(self, action: Send | Relay, said: Said) -> Heard | None:
        """What we hear of it ourselves, if we do."""
        match action:
            case Send(to, body):
                statement = said.get(id(body))
                if statement is None:
                    whole = self._secrets.added_to(body, self.machine.begin) if self.plan.verifies else body
                    said[id(body)] = statement = self.plan.outbox.send(to, whole, self.epoch)
                elif to != self.setting.me:
                    self.plan.outbox.relay(to, statement)
                return self._heard(statement) if to == self.setting.me and not self._over else None
            case Relay(to, statement):
                self.plan.outbox.relay(to, statement)
                return None

    def _account(self) -> RoundAccount | None:
        """What is known here of the round that was decided, for those who check it."""
        origin, group, done = self.machine.origin, self.machine.begin, self.machine.done
        if not self.plan.verifies or not origin or group is None or done is None or done.body.term != group.term:
            return None
        if not self._secrets.are_named(group):
            return None
        begin = open_signed(origin[0], Begin, run=self.setting.run)
        reassigned = [open_signed(wire, Reassign, run=self.setting.run).body for wire in origin[1:]]
        owners = {number: part.owner for number, part in enumerate(begin.body.parts)}
        owners |= {body.part: body.owner for body in sorted(reassigned, key=lambda body: body.attempt)}
        held = [self.plan.results.get(self.epoch, result) for result in done.body.results]
        return RoundAccount(
            begin=begin,
            owners=tuple(owners[number] for number in range(len(owners))),
            group=group,
            done=done,
            results=tuple(part for part in held if part is not None),
            observed=self._parts.observed(begin.body.term),
            private_key=self._secrets.private_key(group.term),
            secret=self._secrets.secret(group.term),
        )

    async def as_cell(self, done: Signed[Done]) -> tuple[EncodedUpdate, int] | None:
        """What was decided, as our cell's contribution, and the samples behind all of it.

        None where we cannot tell, as we came too late for it.
        """
        held = [self.plan.results.get(self.epoch, result) for result in done.body.results]
        parts = [part for part in held if part is not None]
        if not self.machine.origin or len(parts) < len(held):
            return None
        members = open_signed(self.machine.origin[0], Begin, run=self.setting.run).body.members
        included = 2 ** len(members) - 1
        for part in parts:
            for mask in open_signed(part.statement, Result, run=self.setting.run).body.included:
                included &= mask
        samples = sum(member.weight for number, member in enumerate(members) if included >> number & 1)
        chunks = [chunk for part in parts for chunk in part.chunks]
        if not samples:
            return None
        update = await self.plan.transport.in_thread(EncodedUpdate.of_results, self.plan.grid, chunks, done.wire)
        return update, samples

    async def _finish(self, results: tuple[PartResult, ...]) -> RoundOutcome:
        done = self.machine.done
        assert done is not None
        group = self.machine.begin.members if self.machine.begin is not None else ()
        ours = self._parts.weight if self.setting.me in done.body.members else 0
        return RoundOutcome(
            aggregate=await self.plan.transport.in_thread(self._parts.assemble, results),
            done=done,
            duration_seconds=self._now() - (self._closed_at if self._closed_at is not None else self._now()),
            weight=next((member.weight for member in group if member.peer == self.setting.me), ours),
            bytes_sent=self._parts.bytes_sent,
            bytes_received=self._parts.bytes_received,
            recovered_parts=self.machine.recovered_parts,
            missing_senders=self._parts.missing_senders,
            group=group,
            account=self._account(),
            begin=self.machine.origin[0] if self.setting.microbatches and self.machine.origin else b"",
        )

    # -- training -----------------------------------------------------------------------------------------------------

    async def _train(self) -> None:
        """Trains until the epoch closes, at least one microbatch; then encodes the update and commits to it.

        An update that is complete is encoded at once, while the others still train.
        """
        complete = not self._contributes
        while not complete:
            report = await self.learner.step()
            self._take(report)
            complete = not self.setting.microbatches and (report.complete or self._closing.is_set())
        self._take(await self._commit())

    @property
    def _contributes(self) -> bool:
        return self.setting.trains and not self.setting.follows

    async def _commit_for(self, term: int) -> None:
        """In a pipeline: to what has been counted by now."""
        async with self._committing:
            self._take(replace(await self._commit(), term=term))

    async def _commit(self) -> UpdateReady:
        plan = self.plan
        made = (
            await self.learner.encoded(plan.codec, plan.transport.in_thread, plan.memory) if self._contributes else None
        )
        if made is None:
            return UpdateReady(None, 0)
        update, samples = made
        self._parts.contribute(update, samples)
        return UpdateReady(update.root, samples, self.learner.covered)

    async def _tick(self) -> None:
        while True:
            self._take(Tick())
            await self.plan.transport.clock.sleep(TICK_SECONDS)

    def _now(self) -> float:
        return self.plan.transport.clock.monotonic()
