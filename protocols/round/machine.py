"""One peer's side of the round of one epoch, as a state machine without I/O: `handle(event, now) -> actions`.

Phases, and what moves a peer from one to the next:

    GATHERING   training; `Progress` to the leader      -- Close from the leader -->                READY
    READY       update finished; `Ready` to the leader  -- Begin -->                                EXCHANGING
    EXCHANGING  parts sent, reduced, results read       -- all results held: `Prepared` -->         PREPARED
    PREPARED    our vote is cast                        -- Done -->                                 FETCHING
    FETCHING    decided; missing results are fetched    -- all decided results held: Apply -->      APPLIED
    APPLIED     shows `Done` to whoever still asks

    any of the first four                               -- Done, wherever it comes from -->         FETCHING
    READY … PREPARED                                    -- Close of a higher term -->               READY
    FETCHING                                            -- nobody has the results: Resync -->       LOST

Faults, and what answers them:

    the leader dies         who asks it hears nothing (or `Lost`) and suspects it; the next in the order leads the next
                            term: Close, Ready, Begin again. Updates are frozen and committed to, so nothing is
                            computed twice. Results that somebody has voted for are adopted, not reduced anew, as long
                            as they prove under whom they were reduced (`claims.py`).
    a stranger speaks up    only the electorate leads: those who made `base`. Others are followed where none of it
                            lives. A `Begin` that leaves out half of it is put off until they do not answer, either
                            (`electorate.py`).
    two want to lead        a member follows one leader in a term; who is refused learns of the other by `Busy`, and
                            the one who comes later in the order gives way.
    an owner dies           senders say `Suspect`; the leader gives the part to the next in the order (`Reassign`).
    a sender dies           the owner goes on without it (`reduction.py`).
    peers go another way    a `Done` of a group without half of those who made `base` decides nothing here; its members
                            are not waited for any more. Which history is the swarm's is for `protocols.heads` to say.
    a member misses Begin   it is shown `Done` later, and fetches the results from those who voted.
    messages are lost       whoever waits says its last message again; every message may come twice.
    a leader only talks     who waits too long for its next step gives it up for the epoch (`patience.py`).
    most are out of reach   whoever is left without half of those who made `base` waits longer before it goes on alone:
                            rather it is cut off than they are all dead (`leader.py`).
    a microbatch is gone    (pipeline) with a member that has counted it: the next term waits until another member has
                            done it again, and updates are encoded anew. Nobody who has counted any is left out.
    we did not run          time in which this process was stopped is nobody's silence (`awake.py`).

A peer trusts a leader to name the group and the owners, and nothing else: results are voted for by those who hold
them, and a majority's signed votes prove `Done` to anybody.

What is guaranteed: once a majority of a term's group has voted, a later term of that epoch decides the same, if one of
those voters is in its group, has not restarted since, and can prove its vote to the new leader. That is so when both
groups have more than half of the electorate, which all have while more than half of it can be reached. It is less than
Raft guarantees (Ongaro & Ousterhout 2014, §5), for nobody waits for a majority for ever: exactly half of the electorate
goes on at once, and fewer do after a while (`leader.py`). What was decided could then be decided otherwise elsewhere;
the histories part, and heal by `protocols.heads`.
"""

from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum
from typing import Any

from protocols.awake import AwakeTime
from protocols.identity import PeerId
from protocols.message import Message
from protocols.round.claims import Claim
from protocols.round.electorate import Electorate
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
    Trained,
    UpdateReady,
    Weighed,
)
from protocols.round.leader import Leadership
from protocols.round.ledger import Ledger
from protocols.round.messages import (
    Begin,
    Busy,
    Close,
    Done,
    Observed,
    PartResult,
    Prepared,
    Progress,
    Ready,
    Reassign,
    Standing,
    Suspect,
    Wait,
    Weigh,
)
from protocols.round.order import first, place
from protocols.round.patience import Patience
from protocols.round.setting import Setting
from protocols.round.tally import Tally
from protocols.signed import Signed
from protocols.suspension import Fault

SLOWER = 10.0
"""Others may take this many times as long as we did, for the same thing, before we give their leader up."""
MOST_WORDS = 50
"""So often a leader is told within `Timing.resend` how far we are, at most."""
LONG_STEPS = 4
"""No more of them fit into `Timing.resend`."""
DOUBT = 1.5
"""So many times `Timing.failure` a leader whose group leaves out half of the electorate is doubted, then given up."""


class Phase(StrEnum):
    GATHERING = "gathering"
    READY = "ready"
    EXCHANGING = "exchanging"
    PREPARED = "prepared"
    FETCHING = "fetching"
    APPLIED = "applied"
    LOST = "lost"


class Round:
    def __init__(
        self,
        setting: Setting,
        expected: Mapping[PeerId, bool],
        now: float,
        audience: Iterable[PeerId] = (),
        electorate: Iterable[PeerId] | None = None,
        elders: Iterable[PeerId] = (),
        late: Iterable[PeerId] = (),
    ) -> None:
        """`expected`: the members that took part in the last round or are known to have its result (client mode?).

        `audience`: others in the roster, who are told what is decided, but not waited for until heard from.
        `electorate`: who had a say in `base` (the last group, or those whose state we took). None: nobody has made
        `base`; everybody may lead then, and all `expected` have a say.
        `elders`: who was there before us then; what most of them decide stands, though we know of others.
        `late`: those of the audience who follow us and are an epoch or more behind.
        """
        self.setting = setting
        self.started = now
        self._awake = AwakeTime(now, setting.timing.resend)
        self.tally = Tally(setting, expected, late)
        self.peers = self.tally.peers
        self.audience = set(audience)
        makers = [*self.peers, setting.me] if electorate is None else electorate
        is_open = electorate is None or setting.is_of_cells  # who represents a cell was not chosen by us
        self.electorate = Electorate(makers, setting.group_limit, elders, is_open=is_open)
        self.suspected: set[PeerId] = set()
        self._elsewhere: set[PeerId] = set()
        """Those of the suspected who live, but in another epoch or history."""
        self.phase, self.term = Phase.GATHERING, -1
        self.leader: PeerId | None = None
        self.begin: Begin | None = None
        self.recovered_parts = 0
        self.done: Signed[Done] | None = None
        self._leadership: Leadership | None = None
        self._update: UpdateReady | None = None
        self._finishing = False
        self._samples_per_second = 0.0
        self._ledger: Ledger | None = None
        """The parts of this term, where it reduces any."""
        self._held: set[PartResult] = set()
        """Everything that the driver keeps for us, of any term."""
        self._distrusted: set[PeerId] = set()
        """Who claimed to hold a result of an earlier term that nobody could get."""
        self._vote: Prepared | None = None
        """The last vote cast, which later terms carry over …"""
        self._vote_origin: tuple[bytes, ...] = ()
        """… and under whom what it is for was reduced, as in `Ready`."""
        self._begun: dict[int, Signed[Begin]] = {}
        """Those that we have followed and that adopted nothing, by term."""
        self._claim: Claim | None = None
        """On which this term builds, where it adopts something."""
        self._fetching: set[PartResult] = set()
        """Decided results that are on their way."""
        self._patience = Patience(setting.timing.failure)
        self._began_at = now
        """When the last `Begin` came."""
        self._doubted_at: float | None = None
        """Since when our leader's group lacks those of the electorate who live, for all we know."""
        self._fetch_at: float | None = None
        self._favourite: PeerId | None = None
        """Whom we speak to while gathering, since `_waiting_since`."""
        self._heard_at: dict[PeerId, float] = {}
        self._waiting_since = now
        self._said_at = now - setting.timing.resend
        self._actions: list[Action] = []

    def begun(self, term: int) -> Signed[Begin] | None:
        """The one that we have followed in that term, if parts were reduced in it."""
        return self._begun.get(term)

    @property
    def origin(self) -> tuple[bytes, ...]:
        """Under whom the decided results were reduced, as `Ready.origin` says it; empty where we do not know."""
        if self.done is None:
            return ()
        if self._vote is not None and self._vote.results == self.done.body.results:
            return self._vote_origin
        ours = self._ledger is not None and self._ledger.begin.body.term == self.done.body.term
        return self._ledger.origin() if self._ledger is not None and ours else ()

    @property
    def faults(self) -> Mapping[PeerId, Fault]:
        """Who has kept the round waiting, as far as we have seen it ourselves."""
        return self._patience.faults

    # -- events ----------------------------------------------------------------------------------------------------

    def handle(self, event: Event, now: float) -> list[Action]:
        """Takes one event at time `now` (seconds, monotonic); returns what to do, in this order."""
        self._actions = []
        now = self._awake.at(now)
        match event:
            case Heard(Signed(body=Done()) as statement, relayed_by):
                self._hear_done(statement, statement.body, relayed_by, now)
            case Heard(Signed(body=Weigh()) as statement, observed=observed):
                self._hear(statement, None, now)
                self._hear_weigh(statement, observed, now)
            case Heard(statement, _, claim):
                self._hear(statement, claim, now)
            case Tick():
                self._tick(now)
            case Found(peers):
                self._find(peers)
            case Appeared(peers):
                self.audience |= peers - self.suspected - {self.setting.me}
            case Aimed(samples):
                self.tally.target = samples
            case Lost() | Left() | Elsewhere() | Astray():
                self._do_without(event, now)
            case Trained():
                self._trained(event, now)
            case UpdateReady(term=term):
                if term is None or term == self.term:
                    self._update = event
                    self._say_ready()
            case PartHeld():
                self._hold(event, now)
            case PartObserved(observed):
                self._part_observed(observed)
            case PartBroken(term, part, attempt):
                self._part_broken(term, part, attempt, now)
            case FetchFailed(result, term):
                self._fetch_failed(result, term, now)
        return self._actions

    def _do_without(self, event: Lost | Left | Elsewhere | Astray, now: float) -> None:
        peer = event.peer
        match event:
            case Lost():
                self._lose(peer, now)
            case Left():
                self._lose(peer, now)
                self.peers.pop(peer, None)
                self.audience.discard(peer)
                self.electorate.peers.discard(peer)
            case Elsewhere():
                self._miss([peer], now)
            case Astray() if peer == self.leader and self.phase is not Phase.GATHERING and self.done is None:
                self._give_up(peer, now)

    def _hear(self, statement: Signed[Message], claim: Claim | None, now: float) -> None:
        sender, body = statement.sender, statement.body
        only_asks = isinstance(body, Progress) and body.follows
        if sender != self.setting.me:
            self._heard_at[sender] = now
            self.suspected.discard(sender)
            self._elsewhere.discard(sender)
            if not (only_asks or self.setting.follows):
                self.tally.hear(sender, now - self.started)
        if self.done is not None:
            if not isinstance(body, Wait | Busy) and sender != self.setting.me:
                self._actions.append(Relay(sender, self.done))
            return
        if getattr(body, "base", self.setting.base) != self.setting.base:
            return
        if only_asks:
            self._actions.append(Send(sender, self._standing()))
            return
        if self.setting.follows:
            self._name_representative(sender, body)
            return
        if isinstance(body, Busy) and self._is_represented_by(sender, body.leader):
            if self._patience.may_move(sender):
                self._patience.moved_by(sender)
                self._turn_to(sender, body.leader, now)
            return
        if isinstance(body, Close | Busy | Ready) and not self._may_move(sender, body):
            return
        before = (self.term, self.leader)
        self._hear_of_this_base(statement, claim, now)
        if sender != self.setting.me and before != (self.term, self.leader):
            self._patience.moved_by(sender)

    def _may_move(self, peer: PeerId, body: Close | Busy | Ready) -> bool:
        """Whether a word may bring us into another term; of who leads us no more only that it is `Ready` in ours."""
        if body.term < self.term:
            return True
        if peer in self._patience.given_up:
            return isinstance(body, Ready) and body.term == self.term
        return self._patience.may_move(peer)

    def _hear_of_this_base(self, statement: Signed[Message], claim: Claim | None, now: float) -> None:
        sender, body = statement.sender, statement.body
        match body:
            case Progress():
                self._hear_progress(sender, body, now)
            case Standing():  # that its sender leads is known by now: `_heard_at`, `peers`
                if sender == self.favourite():
                    self.tally.hear_standing(body.samples, now - self.started)
            case Close(term=term):
                self._hear_close(sender, term, now)
            case Begin():
                self._hear_begin(statement, body, claim, now)
            case Reassign():
                self._hear_reassign(statement, body)
            case Wait(term=term):
                if sender == self.leader and term == self.term:
                    self._waiting_since = now
            case Busy():
                self._hear_busy(body, now)
            case Ready() | Observed() | Suspect() | Prepared():
                self._lead_with(statement, claim, now)

    def _tick(self, now: float) -> None:
        match self.phase:
            case Phase.GATHERING:
                self._tick_gathering(now)
            case Phase.READY | Phase.EXCHANGING | Phase.PREPARED:
                if self._leadership is not None:
                    if now - self._said_at >= self.setting.timing.resend:
                        self._said_at = now
                        self._say_suspicions()
                    if self.begin is not None:
                        self._notice_silence([member.peer for member in self.begin.members], now)
                    if self._leadership is not None:
                        self._leadership_acts(self._leadership.tick(self.suspected, now), now)
                else:
                    self._tick_following(now)
            case Phase.FETCHING:
                if self._fetch_at is not None and now >= self._fetch_at:
                    self._fetch_missing(now)
            case Phase.APPLIED | Phase.LOST:
                pass

    # -- gathering: training until the swarm has the epoch's samples -------------------------------------------------

    def favourite(self) -> PeerId:
        """Who should lead: of those who may, can be dialled and are not suspected, the first in the order."""
        return first(self.setting.draw, self.setting.epoch, self._leaders())

    def _leaders(self) -> set[PeerId]:
        out = self.suspected | self._patience.given_up
        able = {peer for peer, view in self.peers.items() if not view.client_mode and peer not in out}
        if not self.setting.client_mode or not able:
            able.add(self.setting.me)
        return self.electorate.leaders(able)

    def _may_lead(self, peer: PeerId) -> bool:
        return peer in self.electorate.peers or not self.electorate.peers.issuperset(self._leaders())

    def _trained(self, event: Trained, now: float) -> None:
        own, newly_complete = self.tally.own, False
        step_seconds = self.tally.step(now - self.started)
        if self.setting.microbatches:
            own.count(event.samples, event.covered)
        else:
            newly_complete = own.come_to(event.samples, event.complete, now - self.started)
        self._samples_per_second = event.samples_per_second
        if self.phase is not Phase.GATHERING:
            self._count_while_ready(now)
            return
        if self.favourite() == self.setting.me:
            self._close_when_enough(now)
        elif newly_complete or self._is_worth_telling(step_seconds, now):
            self._say_progress(now)

    def _count_while_ready(self, now: float) -> None:
        """In a pipeline: somebody has counted another microbatch, after the epoch was closed for the first time."""
        if not self.setting.microbatches or self.phase is not Phase.READY:
            return
        if self.leader != self.setting.me:
            self._say_progress(now)
        elif self._leadership is not None and self._leadership.incomplete and self.tally.is_covered(self.suspected):
            self._lead(self.term + 1, now)

    def _is_worth_telling(self, step_seconds: float, now: float) -> bool:
        """Whether our leader should hear how far we are, before it does anyway: it closes the epoch when it knows.

        Whose steps are long tells of each: until the next one the epoch would wait.
        """
        resend, silent = self.setting.timing.resend, now - self._said_at
        if silent < resend / MOST_WORDS:
            return False
        steps_are_long = self.setting.microbatches > 0 or step_seconds >= resend / LONG_STEPS
        tells_of_each = steps_are_long and silent >= resend / LONG_STEPS
        return tells_of_each or self.tally.is_far_from_told(self.suspected, now - self.started)

    def _say_progress(self, now: float) -> None:
        self._said_at = now
        self.tally.told = self.tally.own.samples
        self._actions.append(Send(self.favourite(), self._progress()))

    def _progress(self) -> Progress:
        return Progress(
            base=self.setting.base,
            samples=self.tally.own.samples,
            covered=self.tally.own.covered,
            complete=self.tally.own.complete,
            client_mode=self.setting.client_mode,
            samples_per_second=self._samples_per_second,
            follows=self.setting.follows,
        )

    def _standing(self) -> Standing:
        return Standing(base=self.setting.base, samples=self.tally.samples(self.suspected))

    def _hear_progress(self, sender: PeerId, body: Progress, now: float) -> None:
        self.tally.hear_progress(sender, body, now - self.started)
        if self.phase is not Phase.GATHERING:
            if self.leader == self.setting.me:
                self._actions.append(Send(sender, Close(base=self.setting.base, term=self.term)))
                self._count_while_ready(now)
            elif self.leader is not None:
                self._actions.append(Send(sender, Busy(term=self.term, leader=self.leader)))
            return
        self._actions.append(Send(sender, self._standing()))
        self.tally.answered.add(sender)
        if sender in self.electorate.peers:  # it takes us for its leader: we were one of them before we restarted
            self.electorate.peers.add(self.setting.me)
        if self.favourite() == self.setting.me:
            self._close_when_enough(now)

    def _close_when_enough(self, now: float) -> None:
        if self.tally.is_enough(self.suspected, now - self.started):
            self._lead(self.term + 1, now)

    def _tick_gathering(self, now: float) -> None:
        favourite = self.favourite()
        if self.setting.follows and favourite == self.setting.me:
            if self.setting.trains:
                self._actions.append(Represent())
            return
        if now - self._said_at >= self.setting.timing.resend:
            self._said_at = now
            if favourite == self.setting.me:
                all_others = [*self.peers, *sorted(self.audience.difference(self.peers))]
                told = [peer for peer in all_others if peer not in self.tally.answered]
                self.tally.answered.clear()
                standing = self._standing()
                self._actions += [Send(peer, standing) for peer in told]
            else:
                self._say_progress(now)
        if favourite != self._favourite:
            self._favourite, self._waiting_since = favourite, now
            self._patience.relax()
        if favourite == self.setting.me:
            self._notice_silence(self.peers, now)
            self._close_when_enough(now)
        elif now - max(self._heard_at.get(favourite, self.started), self._waiting_since) > self.setting.timing.failure:
            self._blame(favourite, Fault.ABSENT)
            self._suspect(favourite, now)
        elif self.tally.seems_enough(self.suspected):
            self._patience.wait(now, SLOWER * self.tally.own.complete_after)
            self._suspect_if_stalled(favourite, now)

    # -- following a leader -------------------------------------------------------------------------------------------

    def _hear_close(self, sender: PeerId, term: int, now: float) -> None:
        if sender == self.leader and term == self.term:
            self._say_ready()  # it has not heard us
            return
        if self._leadership is not None and term > self.term and self._leadership.begin is not None:
            self._leadership.desert(sender, self.suspected)
            if self._leadership.stuck:
                self._follow(sender, term, now)
                return
        if not self._accepts(sender, term):
            if self.phase is Phase.GATHERING:
                if self.favourite() == self.setting.me and self._may_lead(sender):
                    self._lead(term + 1, now)  # it says that the samples are there; but we come before it in the order
            elif self.leader is not None and sender != self.setting.me:
                self._actions.append(Send(sender, Busy(term=self.term, leader=self.leader)))
            return
        self._follow(sender, term, now)

    def _accepts(self, sender: PeerId, term: int) -> bool:
        if term <= self.term:
            return False
        if self.phase is Phase.GATHERING:
            favourite = self.favourite()
            return sender == favourite or (self._precedes(sender, favourite) and self._may_lead(sender))
        assert self.leader is not None
        if sender in self._patience.given_up or not self._may_lead(sender):
            return False
        if sender == self.leader or self.leader in self.suspected:
            return True
        return self.phase is Phase.READY and self._precedes(sender, self.leader)

    def _precedes(self, one: PeerId, other: PeerId) -> bool:
        draw, epoch = self.setting.draw, self.setting.epoch
        return place(draw, epoch, one) < place(draw, epoch, other)

    def _follow(self, leader: PeerId, term: int, now: float) -> None:
        """Start `term` over under `leader`."""
        if leader != self.leader:
            self._patience.relax()
            self._doubted_at = None
        if self._ledger is not None and self.phase is Phase.EXCHANGING:
            for part in sorted(self._ledger.lacking):
                self._blame(self._ledger.owners[part][1], Fault.WITHHELD)
        self.phase, self.term, self.leader = Phase.READY, term, leader
        self.begin = self._ledger = None
        self._fetch_at = None
        self._waiting_since = self._said_at = now
        if leader != self.setting.me:
            self._leadership = None
        if self.setting.microbatches:
            self._update = None
        if not self._finishing or self.setting.microbatches:
            self._finishing = True
            self._actions.append(FinishUpdate(term))
        self._say_ready()

    def _say_ready(self) -> None:
        if self._update is None or self.leader is None or self.done is not None:
            return
        body = Ready(
            base=self.setting.base,
            term=self.term,
            weight=self._update.weight,
            root=self._update.root,
            covered=self._update.covered,
            client_mode=self.setting.client_mode,
            speed=self.setting.speed,
            held_term=self._vote.term if self._vote else None,
            held=self._vote.results if self._vote else (),
            origin=self._vote_origin,
        )
        self._actions.append(Send(self.leader, body))

    def _hear_begin(self, statement: Signed[Any], begin: Begin, claim: Claim | None, now: float) -> None:
        sender = statement.sender
        if sender != self.leader or begin.term != self.term or self.phase is not Phase.READY:
            return
        if not any(member.peer == self.setting.me for member in begin.members):
            return
        if sender != self.setting.me and not self._stands_for_most([member.peer for member in begin.members], now):
            return
        if self.setting.is_of_cells and not self._is_of_one_of_each(begin):
            self._give_up(sender, now)
            return
        if begin.adopted and not self._is_proved(claim):
            self._give_up(sender, now)
            return
        self.begin = begin
        self._waiting_since = self._began_at = now
        self._patience.relax()
        self.phase = Phase.EXCHANGING
        if begin.adopted:
            assert claim is not None
            self._claim = claim
            self._fetch_adopted()
            self._prepare_if_whole(now)
            return
        self._begun[self.term] = statement
        self._ledger = Ledger(statement)
        self._actions.append(Exchange(begin, self.term))

    def _stands_for_most(self, members: Collection[PeerId], now: float) -> bool:
        """Whether half of the living electorate is in the group.

        Who is left out is asked whether it lives; the leader says its `Begin` again meanwhile. Who does not answer is
        dead to us, too. If they do answer, the leader is given up: it has made a group of its own.
        """
        if self.electorate.half_in(members, self._living()):
            return True
        failure = self.setting.timing.failure
        if self._doubted_at is None:
            self._doubted_at = now
        for peer in sorted(self._living().difference(members)):
            if now - max(self._heard_at.get(peer, 0.0), self._doubted_at) > failure:
                self.suspected.add(peer)
            else:
                self._actions.append(Send(peer, self._progress()))
        if self.electorate.half_in(members, self._living()):
            return True
        if now - self._doubted_at > DOUBT * failure:
            assert self.leader is not None
            self._give_up(self.leader, now)
        return False

    # -- in the second of two levels ----------------------------------------------------------------------------------

    def _name_representative(self, sender: PeerId, body: Message) -> None:
        """Of our cell: `sender` takes us for it."""
        heir = self.favourite()
        if isinstance(body, Progress | Standing | Close | Ready) and heir not in (self.setting.me, sender):
            self._actions.append(Send(sender, Busy(term=max(self.term, 0), leader=heir)))

    def _is_represented_by(self, peer: PeerId, other: PeerId) -> bool:
        of_cells, cell_of = self.setting.is_of_cells, self.setting.cell_of
        return of_cells and peer != other and cell_of(peer) == cell_of(other) != cell_of(self.setting.me)

    def _turn_to(self, other: PeerId, representative: PeerId, now: float) -> None:
        """`other` has told us who represents its cell."""
        self.peers.pop(other, None)
        if representative not in self.peers:
            self.tally.know(representative)
            if self.phase is Phase.GATHERING and self.favourite() == representative:
                self._say_progress(now)

    def _is_of_one_of_each(self, begin: Begin) -> bool:
        """Whether no cell's aggregate counts twice."""
        cells = [self.setting.cell_of(member.peer) for member in begin.members if member.weight]
        return len(cells) == len(set(cells))

    def _is_proved(self, claim: Claim | None) -> bool:
        """Whether its results are those of a leader, as far as we can know.

        Of a term in which we have followed nobody, its leader's own word is not enough: anybody could say that it led.
        """
        if claim is None:
            return False
        begin = claim.begin
        if known := self._begun.get(begin.body.term):
            return (known.sender, known.body) == (begin.sender, begin.body)
        lawful = begin.sender in self.electorate.makers or self._may_lead(begin.sender)
        return lawful and claim.ready.sender != begin.sender

    def _living(self) -> set[PeerId]:
        return self.electorate.peers - self.suspected

    def _fetch_adopted(self) -> None:
        """Get the results of an earlier term from those who hold them, or from whoever has got them since."""
        assert self.begin is not None
        assert self._claim is not None
        self._fetch_at = None
        holders = dict.fromkeys([*self.begin.holders, *(member.peer for member in self.begin.members)])
        others = tuple(peer for peer in holders if peer != self.setting.me)
        self._actions += [
            Fetch(result, others, self.term, owner)
            for result, owner in zip(self._claim.results, self._claim.owners, strict=True)
            if result not in self._held
        ]

    def _hear_reassign(self, statement: Signed[Any], body: Reassign) -> None:
        if statement.sender != self.leader or body.term != self.term or self._ledger is None:
            return
        if self.phase not in (Phase.EXCHANGING, Phase.PREPARED):
            return
        silent = self._ledger.silent_owner(body.part)
        if not self._ledger.reassign(statement, voted=self.phase is Phase.PREPARED):
            return
        if silent is not None:  # the leader's word alone is nobody's fault
            self._blame(silent, Fault.WITHHELD)
        self.recovered_parts += 1
        self._patience.relax()
        self._actions.append(Redirect(body.part, body.attempt, body.owner))

    def _hold(self, event: PartHeld, now: float) -> None:
        self._held.add(event.result)
        if self.phase is Phase.EXCHANGING:
            ledger = self._ledger if event.term == self.term else None
            if ledger is not None and ledger.hold(event.result, event.attempt):
                self._patience.relax()
            self._prepare_if_whole(now)
        elif self.phase is Phase.FETCHING:
            self._apply_if_whole()

    def _prepare_if_whole(self, now: float) -> None:
        results = self._whole()
        if results is None:
            return
        self.phase = Phase.PREPARED
        self._vote = Prepared(base=self.setting.base, term=self.term, results=results)
        self._said_at = self._waiting_since = now
        self._patience.relax()
        assert self.leader is not None
        self._actions.append(Send(self.leader, self._vote))

    def _whole(self) -> tuple[PartResult, ...] | None:
        """The results of this term, when all are here; and notes under whom they were reduced."""
        if self._ledger is not None:
            results, origin = self._ledger.whole(), self._ledger.origin()
        else:
            assert self._claim is not None
            results, origin = self._claim.results, self._claim.ready.body.origin
            if not self._held.issuperset(results):
                return None
        if results is not None:
            self._vote_origin = origin
        return results

    def _part_observed(self, observed: Observed) -> None:
        if self.phase is not Phase.EXCHANGING or self._ledger is None or observed.term != self.term:
            return
        if self._ledger.observe(observed):
            assert self.leader is not None
            self._actions.append(Send(self.leader, observed))

    def _hear_weigh(self, statement: Signed[Weigh], observed: tuple[Signed[Observed], ...], now: float) -> None:
        if statement.sender != self.leader or statement.body.term != self.term or self._ledger is None:
            return
        if self.phase is Phase.EXCHANGING and self._ledger.weigh(observed):
            self._waiting_since = now
            self._patience.relax()
            self._actions.append(Weighed(self.term, observed))

    def _part_broken(self, term: int, part: int, attempt: int, now: float) -> None:
        if self.phase is Phase.FETCHING:
            self._fetch_at = now
        if self.phase is not Phase.EXCHANGING or self._ledger is None or term != self.term:
            return
        if self._ledger.break_off(part, attempt):
            assert self.leader is not None
            self._actions.append(Send(self.leader, Suspect(term=self.term, part=part, attempt=attempt)))

    def _say_suspicions(self) -> None:
        """Tell the leader which parts do not come; and try their owners again, for it may have been the connection."""
        assert self.leader is not None
        if self._ledger is None:
            return
        for part in self._ledger.take_broken():
            attempt, owner = self._ledger.owners[part]
            self._actions.append(Send(self.leader, Suspect(term=self.term, part=part, attempt=attempt)))
            self._actions.append(Redirect(part, attempt, owner))

    def _tick_following(self, now: float) -> None:
        assert self.leader is not None
        if now - self._said_at >= self.setting.timing.resend:
            self._said_at = now
            if self.phase is Phase.PREPARED and self._vote is not None:
                self._actions.append(Send(self.leader, self._vote))
            else:
                self._say_ready()
                self._say_suspicions()
                if self._ledger is not None:
                    self._actions += [Send(self.leader, observed) for observed in self._ledger.unanswered()]
        if self._fetch_at is not None and now >= self._fetch_at:
            self._fetch_adopted()
        if self.leader in self.suspected or now - self._waiting_since > self.setting.timing.failure:
            if self.leader not in self.suspected:
                self._blame(self.leader, Fault.ABSENT)
            self._suspect(self.leader, now)
            return
        match self.phase:
            case Phase.READY if self._update is not None:
                self._patience.wait(now)
            case Phase.EXCHANGING if self._fetch_at is not None or (self._ledger is not None and self._ledger.lacking):
                self._patience.wait(now)
            case Phase.PREPARED:
                self._patience.wait(now, SLOWER * (self._said_at - self._began_at))
        self._suspect_if_stalled(self.leader, now)

    # -- replacing a leader -------------------------------------------------------------------------------------------

    def _find(self, peers: Mapping[PeerId, bool]) -> None:
        for peer, client_mode in peers.items():
            if peer != self.setting.me:
                self.tally.know(peer).client_mode = client_mode

    def _lose(self, peer: PeerId, now: float) -> None:
        if peer == self.setting.me or self.done is not None:
            return
        if peer not in self.suspected and (peer in self.peers or peer == self.leader):
            self._suspect(peer, now)
        if self._leadership is not None:
            self._leadership_acts(self._leadership.lose(peer, self.suspected, now), now)

    def _miss(self, peers: Iterable[PeerId], now: float) -> None:
        """`peers` live, but have gone another way."""
        for peer in peers:
            if peer != self.setting.me and self.done is None:
                self._elsewhere.add(peer)
                self.audience.discard(peer)
                self._lose(peer, now)

    def _suspect(self, peer: PeerId, now: float) -> None:
        """Take `peer` for dead until heard from; if it led, whoever is next in the order leads the next term."""
        self.suspected.add(peer)
        if self.phase is Phase.GATHERING:
            if self.favourite() == self.setting.me:
                self._close_when_enough(now)
            else:
                self._say_progress(now)
        elif peer == self.leader:
            heir = self.favourite()
            if heir == self.setting.me:
                self._lead(self.term + 1, now)
            else:
                self._follow(heir, self.term + 1, now)  # our `Ready` tells it that we have given its predecessor up

    def _suspect_if_stalled(self, leader: PeerId, now: float) -> None:
        if self._patience.ended(now):
            self._give_up(leader, now)

    def _give_up(self, leader: PeerId, now: float) -> None:
        """It leads us no more in this epoch."""
        self._blame(leader, Fault.ASTRAY)
        self._patience.give_up(leader)
        self._suspect(leader, now)

    def _hear_busy(self, body: Busy, now: float) -> None:
        """Who we wanted to lead follows another; the one earlier in the order goes on."""
        leadership = self._leadership
        if leadership is None or leadership.begin is not None or body.term < self.term:
            return
        ours = body.leader == self.setting.me
        if ours and body.term == self.term:
            return
        out = self.suspected | self._patience.given_up
        if ours or self._precedes(self.setting.me, body.leader) or body.leader in out:
            self._lead(body.term + 1, now)
        elif self._may_lead(body.leader):
            self._follow(body.leader, body.term, now)

    # -- leading ------------------------------------------------------------------------------------------------------

    def _lead(self, term: int, now: float) -> None:
        invited = [*self.peers, self.setting.me]
        self._leadership = Leadership(
            self.setting, term, invited, self.audience, self.electorate, self._distrusted, now
        )
        self._actions += self._leadership.open()
        self._follow(self.setting.me, term, now)

    def _notice_silence(self, peers: Iterable[PeerId], now: float) -> None:
        """Members speak to their leader once per `resend`; who does not is dead."""
        for peer in list(peers):
            heard = max(self._heard_at.get(peer, self._waiting_since), self._waiting_since)
            if peer not in self.suspected and peer != self.setting.me and now - heard > self.setting.timing.failure:
                self._blame(peer, Fault.ABSENT)
                self._lose(peer, now)

    def _lead_with(self, statement: Signed[Message], claim: Claim | None, now: float) -> None:
        """A member's word to the leader of its term."""
        term = getattr(statement.body, "term", -1)
        if self._leadership is not None and term == self.term:
            proved = self._is_proved(claim)
            self._leadership_acts(self._leadership.hear(statement, self.suspected, now, proved=proved), now)
        elif isinstance(statement.body, Ready) and term > self.term and self._is_heir_to(statement.sender):
            self._lead(term + 1, now)  # it has given our leader up, and so have we
        elif self.leader is not None and self.leader != self.setting.me and term <= self.term:
            self._actions.append(Send(statement.sender, Busy(term=self.term, leader=self.leader)))

    def _is_heir_to(self, follower: PeerId) -> bool:
        """Whether we should lead, now that `follower` takes us for its leader.

        Also where we wait for it to lead us: members that come from elsewhere may know another electorate.
        """
        if self.leader is None and follower == self.favourite():
            return True
        gone = self._may_lead(follower) if self.leader is None else self.leader in self.suspected
        return gone and self.favourite() == self.setting.me

    def _leadership_acts(self, actions: list[Action], now: float) -> None:
        self._actions += actions
        if self._leadership is not None:
            for peer, fault in self._leadership.faults:
                self._blame(peer, fault)
            self._leadership.faults.clear()
        if self._leadership is not None and self._leadership.stuck:
            self._start_over(now)

    def _blame(self, peer: PeerId, fault: Fault) -> None:
        """Not who plays another epoch or history: it is not to be waited for."""
        if peer != self.setting.me and peer not in self._elsewhere:
            self._patience.faults[peer] = fault

    def _start_over(self, now: float) -> None:
        """Lead the next term, this one has failed."""
        if self.begin is not None and self.begin.adopted:
            self._distrusted.update(peer for peer in self.begin.holders if peer != self.setting.me)
        self._lead(self.term + 1, now)

    # -- deciding -----------------------------------------------------------------------------------------------------

    def _hear_done(self, statement: Signed[Done], body: Done, relayed_by: PeerId | None, now: float) -> None:
        if self.done is not None or body.base != self.setting.base:
            return
        speakers = [statement.sender, *([relayed_by] if relayed_by else [])]
        self.suspected.difference_update(speakers)
        self._elsewhere.difference_update(speakers)
        if not self._plausible(body):
            if not self._overtakes_its_begin(statement.sender, body):
                self._miss(speakers, now)  # they, not whom they name
                return
            self._waiting_since = now  # our leader speaks, and says it again whenever we ask
            if not self._stands_for_most(body.members, now):
                return
        self.done = statement
        self._leadership = None
        self.phase = Phase.FETCHING
        self._fetch_at = now if self.begin is None else now + self.setting.timing.resend
        self._actions.append(Decided(statement))
        self._apply_if_whole()

    def _plausible(self, body: Done) -> bool:
        """It is what we voted for, of the group that we are in, or of most of the living electorate but us.

        Its signer names the group, and its votes are a majority of that alone: strangers could make a group of
        themselves, and add us to it.
        """
        if self._vote is not None and self._vote.results == body.results:
            return True
        if self.begin is not None and self.begin.term == body.term:
            return tuple(member.peer for member in self.begin.members) == body.members
        living = self.electorate.peers - (self.suspected - self._elsewhere) - {self.setting.me}
        if self.electorate.most_elders_in(body.members):
            return True
        return self.electorate.most_in(body.members, living)

    def _overtakes_its_begin(self, sender: PeerId, body: Done) -> bool:
        """It is of a group that our leader may have named to us, and is then believed as far as its `Begin` were."""
        ours = self.phase is Phase.READY and (sender, body.term) == (self.leader, self.term)
        return ours and self.setting.me in body.members

    def _apply_if_whole(self) -> None:
        assert self.done is not None
        if all(result in self._held for result in self.done.body.results):
            self.phase = Phase.APPLIED
            self._actions.append(Apply(self.done.body.results))

    def _fetch_missing(self, now: float) -> None:
        assert self.done is not None
        self._fetch_at = None
        holders = tuple(peer for peer in self.done.body.members if peer != self.setting.me)
        missing = [result for result in self.done.body.results if result not in self._held | self._fetching]
        self._fetching.update(missing)
        ours = int.from_bytes(place(self.setting.run, self.setting.epoch, self.setting.me)[:4])
        for turn, result in enumerate(missing, ours):  # else all who lack it would ask the same holder first
            first = turn % max(1, len(holders))
            self._actions.append(Fetch(result, holders[first:] + holders[:first]))

    def _fetch_failed(self, result: PartResult, term: int | None, now: float) -> None:
        """`term` tells a fetch that still matters from one of an earlier term."""
        if result in self._held or term != (None if self.phase is Phase.FETCHING else self.term):
            return
        if self.phase is Phase.FETCHING:
            self.phase = Phase.LOST
            self._actions.append(Resync())
        elif self.phase is Phase.EXCHANGING and self._leadership is not None:
            self._start_over(now)  # the results that we adopted are not to be had
        elif self.phase is Phase.EXCHANGING:
            self._fetch_at = now + self.setting.timing.resend
