"""One epoch of one peer: carries out what the round's state machine asks for, and tells it what happened."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
import structlog

from dht.interfaces import Stream, Transport, TransportError
from peer.learner import Learner
from peer.rounds.exchange import PartAddress, Traffic, exchange_part
from peer.rounds.owning import OwnedPart
from peer.rounds.post import ELSEWHERE, Outbox
from peer.rounds.results import HeldPart, ResultStore, Wanted, fetch
from peer.signal import Signal
from peer.tasks import beside
from peer.verification.account import RoundAccount, recipients
from peer.verification.inputs import InputStore
from protocols.codecs import Codec
from protocols.identity import PeerId
from protocols.message import Message
from protocols.rejection import Reason, Rejected
from protocols.round.aggregate import Aggregate, AggregateMemory
from protocols.round.checks import check_term
from protocols.round.claims import open_claim
from protocols.round.events import (
    Action,
    Aimed,
    Appeared,
    Apply,
    Astray,
    Decided,
    Elsewhere,
    Event,
    Exchange,
    Fetch,
    FetchFailed,
    FinishUpdate,
    Found,
    Heard,
    Left,
    Lost,
    PartBroken,
    PartHeld,
    PartObserved,
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
    Observed,
    PartResult,
    Prepared,
    Ready,
    Reassign,
    Result,
    Standing,
    Wait,
    Weigh,
    begin_digest,
)
from protocols.round.parts import Grid
from protocols.round.reduction import EncodedUpdate, PartReduction
from protocols.round.setting import Setting
from protocols.round.weighing import open_weigh
from protocols.rules import Rule
from protocols.signed import Signed, Signer, open_signed
from protocols.suspension import Fault
from protocols.vectors import Vector
from protocols.verification.dealing import Context, Dealing, deal, public_key

TICK_SECONDS = 0.2
FETCH_SECONDS = 60.0
"""For one part from one holder."""
STALL_FACTOR = 1.5
"""An owner that sends nothing for this many times `Timing.failure` (its own deadline for senders) is given up."""

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


class Checking(Protocol):
    """What a session tells those who check its round (`peer.verification`)."""

    inputs: InputStore

    def witness(self, wire: bytes) -> None:
        """A signed statement of somebody, verified before."""

    def follow(self, members: Iterable[PeerId]) -> None:
        """We are in a round with these now."""

    def testify(self, peer: PeerId, begin: Signed[Begin]) -> None:
        """`peer` follows another `Begin` of this round than ours."""


@dataclass(frozen=True)
class Plan:
    """What a session needs of its run."""

    transport: Transport
    signer: Signer
    outbox: Outbox
    results: ResultStore
    grid: Grid
    codec: Codec
    rule: Rule
    memory: AggregateMemory
    checking: Checking
    verifies: bool
    """Whether members check each other's work."""


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
        self._owned: dict[tuple[int, int, int], OwnedPart] = {}
        """(term, part, attempt) → the part that is reduced here."""
        self._owning_changed = Signal()
        self._observed: dict[int, tuple[Signed[Observed], ...]] = {}
        """Term → what the owners of its parts have observed."""
        self._update: EncodedUpdate | None = None
        self._weight = 0
        self._aggregate = Aggregate(plan.grid, plan.memory)
        self._traffic = Traffic()
        self._closing = asyncio.Event()
        self._committing = asyncio.Lock()
        self._closed_at: float | None = None
        self._begin: Begin | None = None
        self._begun: dict[int, bytes] = {}
        """Term → `begin_digest` of the round that we followed in it."""
        self._keyed: set[int] = set()
        """The terms in which we have said our key."""
        self._dealings: dict[int, Dealing] = {}
        """Term → what we have dealt in it."""
        self._parts: dict[int, asyncio.Task[None]] = {}
        """Part → the running exchange of its latest attempt."""
        self._running: list[asyncio.Task[None]] = []
        self._on_change = on_change
        self._stop_at: float | None = None
        """When we leave, whatever has come of the round by then."""
        self._over = self._released = False
        self._followers, self._check = list(followers), check
        self.is_asked_to_represent = False
        """Nobody else of our cell does (`Represent`); it has ended with that."""

    @property
    def epoch(self) -> int:
        return self.setting.epoch

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
        self._check_own_key(statement.body)
        return self._take(self._heard(statement, shown_by), shown_by if asks else None)

    def _admits(self, statement: Signed[Message]) -> bool:
        """Whether its sender, and all whom it names, may take part. Raises Rejected (unexpected)."""
        body = statement.body
        named = [member.peer for member in body.members] if isinstance(body, Begin) else []
        named += body.members if isinstance(body, Done) else []
        if not all(map(self.setting.admits, named)):
            raise Rejected(Reason.UNEXPECTED, f"{body.kind}: names a member of another cell")
        return self.setting.admits(statement.sender)

    def _heard(self, statement: Signed[Message], relayed_by: PeerId | None = None) -> Heard:
        """What it carries is verified; of a `Weigh`, which has many signatures, only our leader's. Raises Rejected."""
        opens = isinstance(statement.body, Weigh) and statement.sender == self.machine.leader
        observed = open_weigh(statement) if opens else ()  # type: ignore[arg-type]
        return Heard(statement, relayed_by, open_claim(statement, self.plan.grid.chunks), observed)

    def _check_own_key(self, body: Message) -> None:
        """A leader that gives us another key than we have said would keep what is sealed for us from us.

        Raises Rejected (unexpected: it may be the one that we had before we restarted).
        """
        if isinstance(body, Begin) and body.term in self._keyed and not self._has_our_key(body):
            raise Rejected(Reason.UNEXPECTED, "begin: the key that it names as ours is not")

    def _has_our_key(self, begin: Begin) -> bool:
        ours = next((member.key for member in begin.members if member.peer == self.setting.me), None)
        return ours is None or ours == public_key(self._secret("key", begin.term))

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
        for part in self._owned.values():
            part.forget(peer)

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
        faults = {peer: fault for part in self._owned.values() for peer, fault in part.faults.items()}
        return {peer: fault for peer, fault in (faults | dict(self.machine.faults)).items() if peer != self.setting.me}

    async def serve_part(self, stream: Stream, statement: Signed[Contribution]) -> None:
        """A member's stream to a part that we own, as soon as we know that we do. Raises Rejected, Unreachable."""
        body = statement.body
        address = (body.term, body.part, body.attempt)
        if self._released:
            raise Rejected(Reason.ABSENT, "the round is over")
        try:
            async with asyncio.timeout(self.setting.timing.failure):
                while address not in self._owned:
                    self._compare(stream.peer, body)
                    await self._owning_changed.wait()
        except TimeoutError as error:
            raise Rejected(Reason.ABSENT, "this part is not reduced here") from error
        self._compare(stream.peer, body)
        self._check(stream.peer, body)
        await self._owned[address].serve(stream, statement)

    def _compare(self, peer: PeerId, contribution: Contribution) -> None:
        """Whether `peer` follows the same `Begin`; it is shown ours if not, for one leader has told two stories then.

        Raises Rejected (absent): whom it believes is not its fault.
        """
        ours = self._begun.get(contribution.term)
        if ours is None or ours == contribution.begin:
            return
        begin = self.machine.begun(contribution.term)
        if begin is not None:
            self.plan.checking.testify(peer, begin)
        raise Rejected(Reason.ABSENT, "the contribution is to another round than its leader has told us of")

    # -- the epoch ----------------------------------------------------------------------------------------------------

    async def run(self) -> RoundOutcome | None:
        """Trains, averages, and returns what everybody applies; None when stopped before that. Raises NeedsResync."""
        try:
            async with beside(self._train()), beside(self._tick()), asyncio.TaskGroup() as tasks:
                outcome = await self._play(tasks)
                for task in self._running:
                    task.cancel()
            return outcome
        finally:
            self._over = True
            self._update = None
            self._aggregate.clear()

    def release(self) -> None:
        """The next epoch has begun: streams that are open are served to their end, and messages answered, but who comes
        now gets the results from whoever has them."""
        self._owned.clear()
        self._released = True

    async def _play(self, tasks: asyncio.TaskGroup) -> RoundOutcome | None:
        while (action := await self._asked.get()) is not None:
            match action:
                case FinishUpdate(term):
                    self._closed_at = self._now()
                    self._closing.set()
                    if self.setting.microbatches:
                        self._running.append(tasks.create_task(self._commit_for(term)))
                    self._on_change()
                case Exchange(begin):
                    self._begin = begin
                    self.plan.checking.follow(member.peer for member in begin.members)
                    self._begun[begin.term] = begin_digest(begin)
                    self.plan.results.make_room(self.plan.codec.encoded_size(self.plan.grid.count))
                    for number, part in enumerate(begin.parts):
                        self._start_part(number, 0, part.owner, tasks)
                case Redirect(part, attempt, owner):
                    self._start_part(part, attempt, owner, tasks)
                case Weighed(term, observed):
                    self._weigh(term, observed)
                case Fetch():
                    self._running.append(tasks.create_task(self._fetch(action)))
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

    def _weigh(self, term: int, observed: tuple[Signed[Observed], ...]) -> None:
        self._observed[term] = observed
        for (of_term, *_), owned in self._owned.items():
            if of_term == term:
                owned.weigh(_bodies(observed))

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
                    statement = self.plan.outbox.send(to, self._with_part_in_seed(body), self.epoch)
                    said[id(body)] = statement
                elif to != self.setting.me:
                    self.plan.outbox.relay(to, statement)
                return self._heard(statement) if to == self.setting.me and not self._over else None
            case Relay(to, statement):
                self.plan.outbox.relay(to, statement)
                return None

    def _with_part_in_seed(self, body: Message) -> Message:
        """What we say when we are ready, and when we vote, where members check each other."""
        if not self.plan.verifies:
            return body
        match body:
            case Ready(term=term):
                self._keyed.add(term)
                return body.model_copy(update={"key": public_key(self._secret("key", term))})
            case Prepared(term=term) if self.machine.begin is not None:
                if term not in self._dealings:
                    context = Context(self.setting.run, self.epoch, self.setting.base, self.setting.me)
                    self._dealings[term] = deal(self._secret("dealt", term), context, recipients(self.machine.begin))
                return body.model_copy(update={"dealing": self._dealings[term]})
        return body

    def _secret(self, purpose: str, term: int) -> bytes:
        return self.plan.signer.secret(purpose, self.epoch, self.setting.base, term)

    def _account(self) -> RoundAccount | None:
        """What is known here of the round that was decided, for those who check it."""
        origin, group, done = self.machine.origin, self.machine.begin, self.machine.done
        if not self.plan.verifies or not origin or group is None or done is None or done.body.term != group.term:
            return None
        if not self._has_our_key(group):
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
            observed=self._observed.get(begin.body.term, ()),
            private_key=self._secret("key", group.term),
            secret=self._secret("dealt", group.term),
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
        return RoundOutcome(
            aggregate=await self.plan.transport.in_thread(self._aggregate.assemble, results),
            done=done,
            duration_seconds=self._now() - (self._closed_at if self._closed_at is not None else self._now()),
            weight=self._weight if self.setting.me in done.body.members else 0,
            bytes_sent=self._traffic.sent + sum(part.bytes_sent for part in self._owned.values()),
            bytes_received=self._traffic.received + sum(part.bytes_received for part in self._owned.values()),
            recovered_parts=self.machine.recovered_parts,
            missing_senders=max((part.missing_senders for part in self._owned.values()), default=0),
            group=self.machine.begin.members if self.machine.begin is not None else (),
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
        made = await self.learner.encoded(self.plan.codec, self.plan.transport.in_thread) if self._contributes else None
        if made is None:
            return UpdateReady(None, 0)
        self._update, self._weight = made
        return UpdateReady(self._update.root, self._weight, self.learner.covered)

    async def _tick(self) -> None:
        while True:
            self._take(Tick())
            await self.plan.transport.clock.sleep(TICK_SECONDS)

    # -- parts --------------------------------------------------------------------------------------------------------

    def _start_part(self, number: int, attempt: int, owner: PeerId, tasks: asyncio.TaskGroup) -> None:
        """Reduce the part here, or exchange it with its owner; ends an earlier attempt at it."""
        begin = self._begin
        assert begin is not None
        if number in self._parts:
            self._parts[number].cancel()
        round_ = self._begun[begin.term]
        address = PartAddress(self.epoch, begin.term, number, attempt, begin.parts[number], owner, round_)
        if self._key(address) in self._owned:
            return
        values = self._aggregate.room(address.part.start, address.part.stop)
        if owner == self.setting.me:
            reduction = PartReduction(
                address.part,
                self.plan.grid,
                begin.members,
                self.plan.codec,
                self.plan.rule,
                keeps=self.plan.verifies,
            )
            owned = OwnedPart(
                reduction,
                self.plan.transport,
                self.plan.signer,
                self.setting.timing,
                address,
            )
            self._owned[self._key(address)] = owned
            self._owning_changed.notify()
            if observed := self._observed.get(begin.term):
                owned.weigh(_bodies(observed))
            work = partial(owned.run, self._contribution(begin), values, self._say_observed)
        else:
            work = partial(
                exchange_part,
                self.plan.transport,
                self.plan.signer,
                address,
                self._contribution(begin),
                self.plan.grid,
                self.plan.codec,
                values,
                STALL_FACTOR * self.setting.timing.failure,
                self._traffic,
            )
        self._parts[number] = tasks.create_task(self._hold(address, work, values))
        self._running.append(self._parts[number])

    def _say_observed(self, observed: Observed) -> None:
        self._take(PartObserved(observed))

    @staticmethod
    def _key(address: PartAddress) -> tuple[int, int, int]:
        return address.term, address.number, address.attempt

    def _contribution(self, begin: Begin) -> EncodedUpdate | None:
        """Our update, if the leader has named what we committed to."""
        ours = next(member for member in begin.members if member.peer == self.setting.me)
        same = self._update is not None and (ours.root, ours.weight) == (self._update.root, self._weight)
        return self._update if same else None

    async def _hold(
        self, address: PartAddress, exchange: Callable[[], Coroutine[Any, Any, HeldPart]], values: Vector
    ) -> None:
        """`values`: what `exchange` decodes its result into."""
        try:
            held = await exchange()
        except (TransportError, Rejected) as error:
            if isinstance(error, Rejected) and address.owner != self.setting.me:
                self.plan.transport.reject(address.owner, error.reason, str(error))
            self._break(address, str(error))
            return
        if self.setting.microbatches and not self._is_of_all(held, address):
            self._break(address, "a microbatch would be lost with a member that is missing from it")
            return
        self.plan.results.put(self.epoch, held)
        self._show(address, held)
        result = held.result
        self._aggregate.keep(result, values)
        self._take(PartHeld(result, address.term, address.attempt))

    def _break(self, address: PartAddress, why: str) -> None:
        log.debug("part broken", epoch=self.epoch, part=address.number, owner=address.owner, error=why)
        self._take(PartBroken(address.term, address.number, address.attempt))

    def _is_of_all(self, held: HeldPart, address: PartAddress) -> bool:
        """Whether all who contribute are in every chunk of it."""
        begin = self.machine.begun(address.term)
        assert begin is not None
        wanted = sum(1 << number for number, member in enumerate(begin.body.members) if member.weight)
        result = open_signed(held.statement, Result, run=self.setting.run)
        return all(mask == wanted for mask in result.body.included)

    def _show(self, address: PartAddress, held: HeldPart) -> None:
        """To those who check the round."""
        self.plan.checking.witness(held.statement)
        owned = self._owned.get(self._key(address))
        if owned is not None and self.plan.verifies:
            self.plan.checking.inputs.put(address.begin, owned.contributions, owned.reduction.inputs)

    async def _fetch(self, wanted: Fetch) -> None:
        result = wanted.result
        for holder in wanted.holders:
            try:
                async with asyncio.timeout(FETCH_SECONDS):
                    values = self._aggregate.room(result.start, result.stop)
                    held = await fetch(
                        self.plan.transport,
                        holder,
                        Wanted(self.plan.signer.run, self.epoch, result, wanted.owner),
                        self.plan.grid,
                        self.plan.codec,
                        values,
                    )
            except (TransportError, Rejected, TimeoutError) as error:
                if isinstance(error, Rejected):
                    self.plan.transport.reject(holder, error.reason, str(error))
                log.debug("result not fetched", epoch=self.epoch, holder=holder, error=str(error))
                continue
            self.plan.results.put(self.epoch, held)
            self.plan.checking.witness(held.statement)
            self._aggregate.keep(result, values)
            self._traffic.received += held.size_bytes
            self._take(PartHeld(result))
            return
        self._take(FetchFailed(result, wanted.term))

    def _now(self) -> float:
        return self.plan.transport.clock.monotonic()


def _bodies(observed: Iterable[Signed[Observed]]) -> tuple[Observed, ...]:
    return tuple(statement.body for statement in observed)
