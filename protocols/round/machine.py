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

What happens in GATHERING stands in `gathering.py`; READY to PREPARED are one term (`follower.py`, and `leader.py` for
who leads it), and `terms.py` says when another begins; from FETCHING on it is `decision.py`. Here each event goes to
the one that it is for.

Faults, and what answers them:

    the leader dies         who asks it hears nothing (or `Lost`) and suspects it; the next in the order leads the next
                            term (`terms.py`): Close, Ready, Begin again. Updates are frozen and committed to, so
                            nothing is computed twice. Results that somebody has voted for are adopted, not reduced
                            anew, as long as they prove under whom they were reduced (`claims.py`).
    a stranger speaks up    only the electorate leads: those who made `base`. Others are followed where none of it
                            lives. A `Begin` that leaves out half of it is put off until they do not answer, either
                            (`electorate.py`, `presence.py`).
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
                            done it again, and updates are encoded anew. Nobody who has counted any is left out, but …
    a member's counts       (pipeline) are another's, too, or are not what it is ready with, or it is not ready: it does
                            them again, or the epoch goes on as if it had counted nothing (`contributors.py`).
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

from collections.abc import Iterable, Mapping
from enum import StrEnum

from protocols.awake import AwakeTime
from protocols.identity import PeerId
from protocols.message import Message
from protocols.round.claims import Claim
from protocols.round.decision import Decision
from protocols.round.electorate import Electorate
from protocols.round.events import (
    Action,
    Aimed,
    Appeared,
    Astray,
    Decided,
    Discard,
    Elsewhere,
    Event,
    FetchFailed,
    Found,
    Heard,
    Left,
    Lost,
    Needed,
    PartBroken,
    PartHeld,
    PartObserved,
    Relay,
    Send,
    Tick,
    Trained,
    UpdateReady,
)
from protocols.round.follower import Following
from protocols.round.gathering import Gathering
from protocols.round.holdings import Holdings
from protocols.round.messages import Begin, Busy, Close, Done, Progress, Ready, Standing, Wait, Weigh
from protocols.round.patience import Patience
from protocols.round.presence import Presence
from protocols.round.setting import Setting
from protocols.round.tally import PeerView, Tally
from protocols.round.terms import Terms
from protocols.signed import Signed
from protocols.suspension import Fault


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
        makers = [*expected, setting.me] if electorate is None else electorate
        is_open = electorate is None or setting.is_of_cells  # who represents a cell was not chosen by us
        cell_of = setting.cell_of if setting.is_of_cells else None
        self._voters = voters = Electorate(
            makers, setting.group_limit, elders, quorum=setting.quorum, is_open=is_open, cell_of=cell_of
        )
        self.tally = Tally(setting, voters, expected, late)
        self._awake = AwakeTime(now, setting.timing.resend)
        self._patience = Patience(setting.timing.failure, setting.not_owning)
        self._presence = Presence(setting, self.peers, audience, voters, self._patience)
        self._holdings = Holdings(setting)
        self._terms = Terms(setting, self.tally, self._presence, self._patience, self._holdings)
        self._gathering = Gathering(setting, self.tally, self._presence, self._patience, self._terms, now)
        self._decision: Decision | None = None
        self._actions: list[Action] = []

    # -- how far it is ------------------------------------------------------------------------------------------------

    @property
    def phase(self) -> Phase:
        if self._decision is not None:
            if self._decision.is_lost:
                return Phase.LOST
            return Phase.APPLIED if self._decision.is_applied else Phase.FETCHING
        following = self._terms.following
        if following is None:
            return Phase.GATHERING
        if following.begin is None:
            return Phase.READY
        return Phase.PREPARED if following.voted else Phase.EXCHANGING

    @property
    def quorum(self) -> int:
        """So many members make a group, by whom we have banned since the epoch began, too."""
        return self._voters.quorum

    @property
    def term(self) -> int:
        return self._terms.latest

    def counted(self, now: float) -> bytes | None:
        """In a pipeline: what our stage has counted of the epoch, by whoever leads; None where that is not known, or
        where its round has begun."""
        if self._decision is not None or self.begin is not None:
            return None
        return self.tally.counted(self.suspected, self._awake.at(now) - self.started, leads=self._leads)

    @property
    def leader(self) -> PeerId | None:
        """Of this term; None while gathering."""
        return self._terms.leader

    @property
    def begin(self) -> Begin | None:
        """What we follow in this term."""
        return self._terms.following.begin if self._terms.following is not None else None

    def begun(self, term: int) -> Signed[Begin] | None:
        """The one that we have followed in that term, if parts were reduced in it."""
        return self._holdings.begun.get(term)

    @property
    def recovered_parts(self) -> int:
        return self._terms.recovered_parts

    @property
    def done(self) -> Signed[Done] | None:
        return self._decision.done if self._decision is not None else None

    @property
    def origin(self) -> tuple[bytes, ...]:
        """Under whom the decided results were reduced, as `Ready.origin` says it; empty where we do not know."""
        if self.done is None:
            return ()
        if self._holdings.voted_for(self.done.body.results):
            return self._holdings.origin
        following = self._terms.following
        if following is None or following.ledger is None or following.term != self.done.body.term:
            return ()
        return following.ledger.origin()

    # -- who is there -------------------------------------------------------------------------------------------------

    @property
    def peers(self) -> dict[PeerId, PeerView]:
        """The members that are waited for, but us."""
        return self.tally.peers

    @property
    def audience(self) -> set[PeerId]:
        """Who is told what is decided beside them."""
        return self._presence.audience

    @property
    def suspected(self) -> set[PeerId]:
        """Whom we take for dead."""
        return self._presence.suspected

    @property
    def faults(self) -> Mapping[PeerId, Fault]:
        """Who has kept the round waiting, as far as we have seen it ourselves."""
        return self._patience.faults

    def favourite(self) -> PeerId:
        """Who should lead."""
        return self._presence.favourite()

    # -- events -------------------------------------------------------------------------------------------------------

    def handle(self, event: Event, now: float) -> list[Action]:
        """Takes one event at time `now` (seconds, monotonic); returns what to do, in this order."""
        self._actions = []
        now = self._awake.at(now)
        match event:
            case Heard(Signed(body=Done()) as statement, relayed_by):
                self._hear_done(statement, relayed_by, now)
            case Heard(Signed(body=Weigh()) as statement, observed=observed):
                self._hear(statement, None, now)
                if self._decision is None:
                    self._actions += self._terms.hear_weigh(statement, observed, now)
            case Heard(statement, _, claim):
                self._hear(statement, claim, now)
            case Tick():
                self._tick(now)
            case Found(peers):
                self._find(peers)
            case Appeared(peers):
                self.audience.update(peers - self.suspected - {self.setting.me})
            case Aimed(samples):
                self.tally.target = samples
            case Needed(quorum):
                self._voters.quorum = quorum
            case Lost() | Left() | Elsewhere() | Astray():
                self._do_without(event, now)
            case Trained():
                self._trained(event, now)
            case UpdateReady() | PartHeld() | PartObserved() | PartBroken() | FetchFailed():
                self._come_further(event, now)
        return self._actions

    def _do_without(self, event: Lost | Left | Elsewhere | Astray, now: float) -> None:
        peer = event.peer
        match event:
            case Lost():
                self._lose(peer, now)
            case Left():
                self._lose(peer, now)
                self.peers.pop(peer, None)
                self._presence.depart(peer)
            case Elsewhere():
                self._miss([peer], now)
            case Astray() if peer == self.leader and self._decision is None:
                self._actions += self._terms.give_up(peer, now)

    def _trained(self, event: Trained, now: float) -> None:
        newly_complete = self.tally.step(event, now - self.started)
        if self._decision is not None:
            return
        if self._gathering.is_over:
            self._actions += self._terms.count(now)
        else:
            self._actions += self._gathering.trained(now, newly_complete=newly_complete)

    def _come_further(
        self, event: UpdateReady | PartHeld | PartObserved | PartBroken | FetchFailed, now: float
    ) -> None:
        """With what the term asked for, or the decision."""
        following, decision = self._terms.following, self._decision
        match event:
            case UpdateReady(term=term):
                if term is None or term == self.term:
                    self._holdings.update = event
                    if following is not None and decision is None:
                        self._actions += following.say_ready()
            case PartHeld(result):
                self._holdings.results.add(result)
                self._actions += decision.apply_if_whole() if decision is not None else self._terms.hold(event, now)
            case PartObserved(observed):
                if following is not None and decision is None:
                    self._actions += following.observe(observed)
            case PartBroken(term, part, attempt):
                if decision is not None:
                    decision.fetch_at(now)
                elif following is not None:
                    self._actions += following.break_off(term, part, attempt)
            case FetchFailed() if decision is not None:
                self._actions += decision.fetch_failed(event)
            case FetchFailed():
                self._actions += self._terms.fetch_failed(event, now)

    def _hear(self, statement: Signed[Message], claim: Claim | None, now: float) -> None:
        sender, body = statement.sender, statement.body
        only_asks = isinstance(body, Progress) and body.follows
        if sender != self.setting.me:
            self._presence.hear(sender, now)
            if not (only_asks or self.setting.follows):
                self.tally.hear(sender, now - self.started)
        if self.done is not None:
            if not isinstance(body, Wait | Busy) and sender != self.setting.me:
                self._actions.append(Relay(sender, self.done))
            return
        if getattr(body, "base", self.setting.base) != self.setting.base:
            return
        if only_asks:
            self._actions.append(Send(sender, self.tally.standing(self.suspected)))
            return
        if self.setting.follows:
            self._name_representative(sender, body)
            return
        if isinstance(body, Busy) and self._is_represented_by(sender, body.leader):
            if self._patience.may_move(sender):
                self._patience.moved_by(sender)
                self._turn_to(sender, body.leader, now)
            return
        if isinstance(body, Close | Busy | Ready) and not self._terms.may_move(sender, body):
            return
        before = (self.term, self.leader)
        self._hear_of_this_base(statement, claim, now)
        if sender != self.setting.me and before != (self.term, self.leader):
            self._patience.moved_by(sender)

    def _hear_of_this_base(self, statement: Signed[Message], claim: Claim | None, now: float) -> None:
        sender, body = statement.sender, statement.body
        match body:
            case Standing():  # that its sender leads is known by now: it was heard
                if sender == (self.leader or self.favourite()):
                    self.tally.hear_standing(body, now - self.started)
                    self._actions += [Discard(body.refused)] if body.refused else []
                return
            case Progress():
                self.tally.hear_progress(sender, body, now - self.started, statement.sequence)
                if not self._gathering.is_over:
                    self._actions += self._gathering.answer(sender, now)
                    return
        self._actions += self._terms.hear(statement, claim, now)

    def _tick(self, now: float) -> None:
        if self._decision is not None:
            self._actions += self._decision.tick(now)
        elif self._gathering.is_over:
            self._actions += self._terms.tick(now)
        else:
            self._actions += self._gathering.tick(now)
        if self.setting.microbatches and self._leads and self._decision is None:
            self._look_at_counts()

    @property
    def _leads(self) -> bool:
        return (self.leader or self.favourite()) == self.setting.me

    def _look_at_counts(self) -> None:
        """Whether ours have to give way; and whose word about theirs is worth little."""
        contributors, own = self.tally.contributors, self.tally.own
        if self.setting.me in contributors.giving_way:
            self._actions.append(Discard(own.covered))
        for peer in contributors.at_fault:
            self._presence.blame(peer, Fault.CONTRADICTED)

    # -- who comes and goes -------------------------------------------------------------------------------------------

    def _find(self, peers: Mapping[PeerId, bool]) -> None:
        for peer, client_mode in peers.items():
            if peer != self.setting.me:
                self.tally.know(peer).client_mode = client_mode

    def _lose(self, peer: PeerId, now: float) -> None:
        if peer == self.setting.me or self._decision is not None:
            return
        stage = self._terms if self._gathering.is_over else self._gathering
        self._actions += stage.lose(peer, now)

    def _miss(self, peers: Iterable[PeerId], now: float) -> None:
        """`peers` live, but have gone another way."""
        for peer in peers:
            if peer != self.setting.me and self._decision is None:
                self._presence.turn_away(peer)
                self._lose(peer, now)

    # -- in the second of two levels ----------------------------------------------------------------------------------

    def _name_representative(self, sender: PeerId, body: Message) -> None:
        """Of our cell: `sender` takes us for it."""
        heir = self.favourite()
        if isinstance(body, Progress | Standing | Close | Ready) and heir not in (self.setting.me, sender):
            self._actions.append(Send(sender, Busy(term=max(self.term, 0), leader=heir)))

    def _is_represented_by(self, peer: PeerId, other: PeerId) -> bool:
        cell_of = self.setting.cell_of
        if not self.setting.is_of_cells or other in self.suspected:  # `peer` will learn of that, too
            return False
        return peer != other and cell_of(peer) == cell_of(other) != cell_of(self.setting.me)

    def _turn_to(self, other: PeerId, representative: PeerId, now: float) -> None:
        """`other` has told us who represents its cell."""
        self.peers.pop(other, None)
        if representative not in self.peers:
            self.tally.know(representative)
            if not self._gathering.is_over:
                self._actions += self._gathering.speak_to(representative, now)

    # -- deciding -----------------------------------------------------------------------------------------------------

    def _hear_done(self, statement: Signed[Done], relayed_by: PeerId | None, now: float) -> None:
        body = statement.body
        if self._decision is not None or body.base != self.setting.base:
            return
        speakers = [statement.sender, *([relayed_by] if relayed_by else [])]
        self._presence.clear(speakers)
        self._presence.follows(speakers, body.results)
        following = self._terms.following
        if not self._plausible(body):
            if following is None or not self._overtakes_its_begin(following, statement):
                self._miss(speakers, now)  # they, not whom they name
                return
            following.waiting_since = now  # our leader speaks, and says it again whenever we ask
            self._actions += self._terms.ask_left_out(body.members, now)
            if not self._presence.stands_for_half(body.members):
                self._actions += self._terms.give_up_if_doubted(now)
                return
        fetch_at = now if self.begin is None else now + self.setting.timing.resend
        self._decision = Decision(self.setting, statement, self._holdings, fetch_at)
        self._terms.end()
        self._actions.append(Decided(statement))
        self._actions += self._decision.apply_if_whole()

    def _plausible(self, body: Done) -> bool:
        """It is what we voted for, of the group that we are in, or of most of the living electorate but us, with those
        who have followed that group.

        Its signer names the group, and its votes are a majority of that alone: strangers could make a group of
        themselves, and add us to it.
        """
        if self._holdings.voted_for(body.results):
            return True
        if self.begin is not None and self.begin.term == body.term:
            return tuple(member.peer for member in self.begin.members) == body.members
        return self._presence.stands_for_most_others({*body.members, *self._presence.followers(body.results)})

    def _overtakes_its_begin(self, following: Following, statement: Signed[Done]) -> bool:
        """It is of a group that our leader may have named to us, and is then believed as far as its `Begin` were."""
        ours = following.begin is None and following.is_led_by(statement.sender, statement.body.term)
        return ours and self.setting.me in statement.body.members
