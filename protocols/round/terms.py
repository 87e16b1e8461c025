"""The terms of an epoch: whom we follow in each, and when the next one begins, under the same leader or another.

An epoch has closed when its first term begins. A term ends when its leader falls silent, brings us no further, or says
what no honest leader does: then whoever is next in the order leads the next one; when its leader begins it anew, as it
can come to nothing any more (`Leadership.stuck`); and when somebody who comes earlier in the order leads a higher one.
What was voted for in one term is adopted in the next if it is proved.

`follower.py` is what we do within a term, `leader.py` what we do beside it when it is ours to lead; here are the rules
by which a leader's words are followed, and terms replace each other.
"""

from collections.abc import Collection
from typing import Any

from protocols.identity import PeerId
from protocols.message import Message
from protocols.round.claims import Claim
from protocols.round.events import Action, FetchFailed, FinishUpdate, PartHeld, Send
from protocols.round.follower import Following
from protocols.round.holdings import Holdings
from protocols.round.leader import Leadership
from protocols.round.messages import (
    Begin,
    Busy,
    Close,
    Observed,
    Prepared,
    Progress,
    Ready,
    Reassign,
    Suspect,
    Wait,
    Weigh,
)
from protocols.round.patience import Patience
from protocols.round.presence import Presence
from protocols.round.setting import Setting
from protocols.round.tally import Tally
from protocols.signed import Signed
from protocols.suspension import Fault


class Terms:
    def __init__(
        self, setting: Setting, tally: Tally, presence: Presence, patience: Patience, holdings: Holdings
    ) -> None:
        self.following: Following | None = None
        """What we do in the latest term; None until the epoch is closed."""
        self.recovered_parts = 0
        self._leadership: Leadership | None = None
        """Of the latest term, if we lead it."""
        self._finishing = False
        self._told_at = float("-inf")
        """When we, leading, last told all what counts."""
        self._distrusted: set[PeerId] = set()
        """Who claimed to hold a result of an earlier term that nobody could get."""
        self._setting, self._tally, self._holdings = setting, tally, holdings
        self._presence, self._patience = presence, patience

    @property
    def latest(self) -> int:
        """−1 before the first."""
        return self.following.term if self.following is not None else -1

    @property
    def leader(self) -> PeerId | None:
        return self.following.leader if self.following is not None else None

    def may_move(self, peer: PeerId, body: Close | Busy | Ready) -> bool:
        """Whether a word may bring us into another term; of who leads us no more only that it is `Ready` in ours."""
        if body.term < self.latest:
            return True
        if peer in self._patience.given_up:
            return isinstance(body, Ready) and body.term == self.latest
        return self._patience.may_move(peer)

    def hear(self, statement: Signed[Message], claim: Claim | None, now: float) -> list[Action]:
        sender, body = statement.sender, statement.body
        match body:
            case Progress():
                return self._answer_late_progress(sender, now)
            case Close(term=term):
                return self._hear_close(sender, term, now)
            case Begin():
                return self._hear_begin(statement, body, claim, now)
            case Reassign():
                return self._hear_reassign(statement, body)
            case Wait(term=term):
                if self.following is not None and self.following.is_led_by(sender, term):
                    self.following.waiting_since = now
            case Busy():
                return self._hear_busy(body, now)
            case Ready() | Observed() | Suspect() | Prepared():
                return self._lead_with(statement, claim, now)
        return []

    def tick(self, now: float) -> list[Action]:
        following = self.following
        assert following is not None
        actions = following.tick(now)
        if self._leadership is None:
            return actions + self._watch(following, now)
        for member in following.begin.members if following.begin is not None else ():
            if self.following is following and self._presence.misses(member.peer, following.waiting_since, now):
                actions += self.lose(member.peer, now)
        if self._setting.microbatches and self._leadership is not None and self._leadership.begin is None:
            actions += self._tell_what_counts(now)
        return actions + self._act_as_leader(self._leadership.tick(self._presence.suspected, now), now)

    def _tell_what_counts(self, now: float) -> list[Action]:
        """In a pipeline: as while the epoch was gathered, for some of it may have to be done again."""
        if now - self._told_at < self._setting.timing.resend:
            return []
        self._told_at = now
        return [*self._tally.standings(self._presence.suspected, list(self._presence.peers))]

    def end(self) -> None:
        """It is decided."""
        self._leadership = None

    # -- following a leader -------------------------------------------------------------------------------------------

    def _hear_close(self, sender: PeerId, term: int, now: float) -> list[Action]:
        following, presence = self.following, self._presence
        if following is not None and following.is_led_by(sender, term):
            return following.say_ready()  # it has not heard us
        if self._leadership is not None and term > self.latest and self._leadership.begin is not None:
            self._leadership.desert(sender, presence.suspected)
            if self._leadership.stuck:
                return self._follow(sender, term, now)
        if self._accepts(sender, term):
            return self._follow(sender, term, now)
        if following is None:
            # it says that the samples are there; but we come before it in the order
            ours = presence.favourite() == self._setting.me and presence.may_lead(sender)
            return self.lead(term + 1, now) if ours else []
        return [self._busy(sender)] if sender != self._setting.me else []

    def _accepts(self, sender: PeerId, term: int) -> bool:
        following, presence = self.following, self._presence
        if term <= self.latest:
            return False
        if following is None:
            favourite = presence.favourite()
            return sender == favourite or (presence.precedes(sender, favourite) and presence.may_lead(sender))
        if sender in self._patience.given_up or not presence.may_lead(sender):
            return False
        if sender == following.leader or following.leader in presence.suspected:
            return True
        return following.begin is None and presence.precedes(sender, following.leader)

    def _follow(self, leader: PeerId, term: int, now: float) -> list[Action]:
        """Start `term` over under `leader`."""
        if leader != self.leader:
            self._patience.relax()
            self._presence.trust()
        if self.following is not None:
            self.following.blame_silent_owners()
        self.following = Following(self._setting, term, leader, self._holdings, self._presence, self._patience, now)
        if leader != self._setting.me:
            self._leadership = None
        actions: list[Action] = []
        if self._setting.microbatches:
            self._holdings.update = None
        if not self._finishing or self._setting.microbatches:
            self._finishing = True
            actions.append(FinishUpdate(term))
        return actions + self.following.say_ready()

    def _hear_begin(self, statement: Signed[Any], begin: Begin, claim: Claim | None, now: float) -> list[Action]:
        sender, following = statement.sender, self.following
        if following is None or not following.is_led_by(sender, begin.term) or following.begin is not None:
            return []
        members = [member.peer for member in begin.members]
        if self._setting.me not in members:
            return []
        actions: list[Action] = []
        if sender != self._setting.me:
            actions += self.ask_left_out(members, now)
            if not self._presence.stands_for_half(members):
                return actions + self.give_up_if_doubted(now)
        if self._setting.is_of_cells and not self._is_of_one_of_each(begin):
            return actions + self.give_up(sender, now)
        if begin.adopted and not self._is_proved(claim):
            return actions + self.give_up(sender, now)
        return actions + following.begin_with(statement, claim, now)

    def ask_left_out(self, members: Collection[PeerId], now: float) -> list[Action]:
        """Whoever our leader's group leaves out is asked whether it lives, where they are half of the electorate.

        The leader says its word again meanwhile. Who does not answer is dead to us, too.
        """
        if self._presence.stands_for_half(members):
            return []
        return [Send(peer, self._tally.progress()) for peer in self._presence.left_out(members, now)]

    def give_up_if_doubted(self, now: float) -> list[Action]:
        """If those left out do answer: the leader has made a group of its own."""
        if not self._presence.doubts_for_too_long(now):
            return []
        assert self.leader is not None
        return self.give_up(self.leader, now)

    def _is_of_one_of_each(self, begin: Begin) -> bool:
        """Whether, in the second of two levels, no cell's aggregate counts twice."""
        return self._setting.are_of_different_cells([member.peer for member in begin.members if member.weight])

    def _is_proved(self, claim: Claim | None) -> bool:
        """Whether its results are those of a leader, as far as we can know.

        Of a term in which we have followed nobody, its leader's own word is not enough: anybody could say that it led.
        """
        if claim is None:
            return False
        begin = claim.begin
        if known := self._holdings.begun.get(begin.body.term):
            return (known.sender, known.body) == (begin.sender, begin.body)
        lawful = begin.sender in self._presence.electorate.makers or self._presence.may_lead(begin.sender)
        return lawful and claim.ready.sender != begin.sender

    def _hear_reassign(self, statement: Signed[Any], body: Reassign) -> list[Action]:
        if self.following is None or not self.following.is_led_by(statement.sender, body.term):
            return []
        actions = self.following.reassign(statement)
        self.recovered_parts += len(actions)
        return actions

    def hear_weigh(self, statement: Signed[Weigh], observed: tuple[Signed[Observed], ...], now: float) -> list[Action]:
        if self.following is None or not self.following.is_led_by(statement.sender, statement.body.term):
            return []
        return self.following.weigh(observed, now)

    def hold(self, event: PartHeld, now: float) -> list[Action]:
        return self.following.hold(event, now) if self.following is not None else []

    def fetch_failed(self, event: FetchFailed, now: float) -> list[Action]:
        """Of a result that this term adopts, if it still does."""
        following = self.following
        if following is None or not following.exchanges or event.term != following.term:
            return []
        if event.result in self._holdings.results:
            return []
        if self._leadership is not None:
            return self._start_over(now)  # the results that we adopted are not to be had
        following.fetch_later(now)
        return []

    # -- replacing a leader -------------------------------------------------------------------------------------------

    def lose(self, peer: PeerId, now: float) -> list[Action]:
        """It cannot be reached."""
        actions: list[Action] = []
        if peer not in self._presence.suspected and (peer in self._presence.peers or peer == self.leader):
            actions += self._suspect(peer, now)
        if self._leadership is not None:
            actions += self._act_as_leader(self._leadership.lose(peer, self._presence.suspected, now), now)
        return actions

    def give_up(self, leader: PeerId, now: float) -> list[Action]:
        """It leads us no more in this epoch."""
        self._presence.give_up(leader)
        return self._suspect(leader, now)

    def _watch(self, following: Following, now: float) -> list[Action]:
        """Whether our leader says nothing to us as our leader, or only talks."""
        leader, presence = following.leader, self._presence
        if leader not in presence.suspected:
            if now - following.waiting_since <= self._setting.timing.failure:
                return self.give_up(leader, now) if self._patience.ended(now) else []
            presence.blame(leader, Fault.ABSENT)
        return self._suspect(leader, now)

    def _suspect(self, peer: PeerId, now: float) -> list[Action]:
        """Take `peer` for dead until heard from; if it led, whoever is next in the order leads the next term."""
        self._presence.suspected.add(peer)
        if peer != self.leader:
            return []
        heir = self._presence.favourite()
        if heir == self._setting.me:
            return self.lead(self.latest + 1, now)
        return self._follow(heir, self.latest + 1, now)  # our `Ready` tells it that we have given its predecessor up

    def _busy(self, peer: PeerId) -> Send:
        """Tells `peer` whom we follow."""
        assert self.leader is not None
        return Send(peer, Busy(term=self.latest, leader=self.leader))

    def _hear_busy(self, body: Busy, now: float) -> list[Action]:
        """Who we wanted to lead follows another; the one earlier in the order goes on."""
        leadership, presence = self._leadership, self._presence
        if leadership is None or leadership.begin is not None or body.term < self.latest:
            return []
        ours = body.leader == self._setting.me
        if ours and body.term == self.latest:
            return []
        if ours or presence.precedes(self._setting.me, body.leader) or body.leader in presence.out():
            return self.lead(body.term + 1, now)
        return self._follow(body.leader, body.term, now) if presence.may_lead(body.leader) else []

    # -- leading ------------------------------------------------------------------------------------------------------

    def lead(self, term: int, now: float) -> list[Action]:
        presence, invited = self._presence, [*self._presence.peers, self._setting.me]
        self._leadership = Leadership(
            self._setting, term, invited, presence.audience, presence.electorate, self._distrusted, self._tally, now
        )
        return [*self._leadership.open(), *self._follow(self._setting.me, term, now)]

    def count(self, now: float) -> list[Action]:
        """In a pipeline: somebody has counted another microbatch, after the epoch was closed for the first time."""
        following = self.following
        if not self._setting.microbatches or following is None or following.begin is not None:
            return []
        if self._leadership is None:
            following.said_at = now
            return [Send(self._presence.favourite(), self._tally.tell())]
        if self._leadership.incomplete and self._leadership.may_be_whole(self._presence.suspected):
            return self.lead(self.latest + 1, now)
        return []

    def _answer_late_progress(self, sender: PeerId, now: float) -> list[Action]:
        """`sender` has not heard that the epoch is closed."""
        if self.leader == self._setting.me:
            return [Send(sender, Close(base=self._setting.base, term=self.latest)), *self.count(now)]
        return [self._busy(sender)]

    def _lead_with(self, statement: Signed[Message], claim: Claim | None, now: float) -> list[Action]:
        """A member's word to the leader of its term."""
        term = getattr(statement.body, "term", -1)
        if self._leadership is not None and term == self.latest:
            suspected, proved = self._presence.suspected, self._is_proved(claim)
            return self._act_as_leader(self._leadership.hear(statement, suspected, now, proved=proved), now)
        if isinstance(statement.body, Ready) and term > self.latest and self._is_heir_to(statement.sender):
            return self.lead(term + 1, now)  # it has given our leader up, and so have we
        if self.leader is not None and self.leader != self._setting.me and term <= self.latest:
            return [self._busy(statement.sender)]
        return []

    def _is_heir_to(self, follower: PeerId) -> bool:
        """Whether we should lead, now that `follower` takes us for its leader.

        Also where we wait for it to lead us: members that come from elsewhere may know another electorate.
        """
        leader, presence = self.leader, self._presence
        if leader is None and follower == presence.favourite():
            return True
        gone = presence.may_lead(follower) if leader is None else leader in presence.suspected
        return gone and presence.favourite() == self._setting.me

    def _act_as_leader(self, actions: list[Action], now: float) -> list[Action]:
        """And lead the next term, if this one has failed."""
        leadership = self._leadership
        if leadership is None:
            return actions
        for peer, fault in leadership.faults:
            self._presence.blame(peer, fault)
        leadership.faults.clear()
        return actions + self._start_over(now) if leadership.stuck else actions

    def _start_over(self, now: float) -> list[Action]:
        begin = self.following.begin if self.following is not None else None
        if begin is not None and begin.adopted:
            self._distrusted.update(peer for peer in begin.holders if peer != self._setting.me)
        return self.lead(self.latest + 1, now)
