"""What a member does in one term, whoever leads it: says `Ready`, exchanges the parts, votes for their results.

    ready        our update is told, as soon as it is finished                       -- Begin -->
    exchanging   parts sent, reduced, read, or adopted results fetched               -- all are held: Prepared -->
    prepared     our vote is told until the leader has decided

Who leads does this, too, with itself as its leader. Which words of a leader's are followed is for `terms.py` to say.
"""

from typing import Any

from protocols.identity import PeerId
from protocols.round.claims import Claim
from protocols.round.events import Action, Exchange, Fetch, PartHeld, Redirect, Send, Weighed
from protocols.round.holdings import Holdings
from protocols.round.ledger import Ledger
from protocols.round.messages import Begin, Observed, PartResult, Prepared, Reassign, Suspect
from protocols.round.patience import SLOWER, Patience
from protocols.round.presence import Presence
from protocols.round.setting import Setting
from protocols.signed import Signed
from protocols.suspension import Fault


class Following:
    def __init__(
        self,
        setting: Setting,
        term: int,
        leader: PeerId,
        holdings: Holdings,
        presence: Presence,
        patience: Patience,
        now: float,
    ) -> None:
        self.term, self.leader = term, leader
        self.begin: Begin | None = None
        self.voted = False
        self.ledger: Ledger | None = None
        """The parts, where the term reduces any …"""
        self._claim: Claim | None = None
        """… and on what it builds where it adopts results."""
        self.waiting_since = self.said_at = now
        """When the leader last brought us further, and when we last spoke to it."""
        self._began_at = now
        self._fetch_at: float | None = None
        """When to ask again for what is adopted."""
        self._setting, self._holdings = setting, holdings
        self._presence, self._patience = presence, patience

    @property
    def exchanges(self) -> bool:
        return self.begin is not None and not self.voted

    def is_led_by(self, peer: PeerId, term: int) -> bool:
        return (peer, term) == (self.leader, self.term)

    def say_ready(self) -> list[Action]:
        ready = self._holdings.ready(self.term)
        return [Send(self.leader, ready)] if ready is not None else []

    # -- the leader's words -------------------------------------------------------------------------------------------

    def begin_with(self, statement: Signed[Any], claim: Claim | None, now: float) -> list[Action]:
        """`claim`: what its results are adopted from, if it adopts any."""
        begin: Begin = statement.body
        self.begin = begin
        self.waiting_since = self._began_at = now
        self._patience.relax()
        if begin.adopted:
            assert claim is not None
            self._claim = claim
            return [*self._fetch_adopted(), *self._vote_if_whole(now)]
        self._holdings.begun[self.term] = statement
        self.ledger = Ledger(statement)
        return [Exchange(begin, self.term)]

    def reassign(self, statement: Signed[Reassign]) -> list[Action]:
        """A part has another owner, if that is news."""
        body = statement.body
        if self.ledger is None:
            return []
        silent = self.ledger.silent_owner(body.part)
        if not self.ledger.reassign(statement, voted=self.voted):
            return []
        if silent is not None:  # the leader's word alone is nobody's fault
            self._presence.blame(silent, Fault.WITHHELD)
        self._patience.relax()
        return [Redirect(body.part, body.attempt, body.owner)]

    def weigh(self, observed: tuple[Signed[Observed], ...], now: float) -> list[Action]:
        if not self.exchanges or self.ledger is None or not self.ledger.weigh(observed):
            return []
        self.waiting_since = now
        self._patience.relax()
        return [Weighed(self.term, observed)]

    # -- the exchange -------------------------------------------------------------------------------------------------

    def hold(self, event: PartHeld, now: float) -> list[Action]:
        """A result is here, and among our holdings."""
        if not self.exchanges:
            return []
        ledger = self.ledger if event.term == self.term else None
        if ledger is not None and ledger.hold(event.result, event.attempt):
            self._patience.relax()
        return self._vote_if_whole(now)

    def _vote_if_whole(self, now: float) -> list[Action]:
        results, origin = self._results_with_origin()
        if results is None:
            return []
        vote = Prepared(base=self._setting.base, term=self.term, results=results)
        self._holdings.cast(vote, origin)
        self.voted = True
        self.said_at = self.waiting_since = now
        self._patience.relax()
        return [Send(self.leader, vote)]

    def _results_with_origin(self) -> tuple[tuple[PartResult, ...] | None, tuple[bytes, ...]]:
        """The results of this term, when all are here, and under whom they were reduced."""
        if self.ledger is not None:
            return self.ledger.whole(), self.ledger.origin()
        assert self._claim is not None
        here = not self._holdings.missing(self._claim.results)
        return self._claim.results if here else None, self._claim.ready.body.origin

    def observe(self, observed: Observed) -> list[Action]:
        """All of a part of ours is here."""
        if not self.exchanges or self.ledger is None or observed.term != self.term:
            return []
        return [Send(self.leader, observed)] if self.ledger.observe(observed) else []

    def break_off(self, term: int, part: int, attempt: int) -> list[Action]:
        """No result of this part comes from its owner."""
        if not self.exchanges or self.ledger is None or term != self.term:
            return []
        if not self.ledger.break_off(part, attempt):
            return []
        return [Send(self.leader, Suspect(term=self.term, part=part, attempt=attempt))]

    def blame_silent_owners(self) -> None:
        """The term ends without us having all results."""
        if self.exchanges and self.ledger is not None:
            for part in sorted(self.ledger.lacking):
                self._presence.blame(self.ledger.owners[part][1], Fault.WITHHELD)

    def fetch_later(self, now: float) -> None:
        """What is adopted was not to be had."""
        self._fetch_at = now + self._setting.timing.resend

    def _fetch_adopted(self) -> list[Action]:
        """Get the results of an earlier term from those who hold them, or from whoever has got them since."""
        assert self.begin is not None
        assert self._claim is not None
        self._fetch_at = None
        holders = dict.fromkeys([*self.begin.holders, *(member.peer for member in self.begin.members)])
        others = tuple(peer for peer in holders if peer != self._setting.me)
        return [
            Fetch(result, others, self.term, owner)
            for result, owner in zip(self._claim.results, self._claim.owners, strict=True)
            if result not in self._holdings.results
        ]

    # -- time passes --------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> list[Action]:
        actions: list[Action] = []
        if now - self.said_at >= self._setting.timing.resend:
            self.said_at = now
            actions += self._say_again()
        if self.leader == self._setting.me:
            return actions
        if self._fetch_at is not None and now >= self._fetch_at:
            actions += self._fetch_adopted()
        self._wait(now)
        return actions

    def _say_again(self) -> list[Action]:
        if self.leader == self._setting.me:
            return self._complaints()
        if self.voted and self._holdings.vote is not None:
            return [Send(self.leader, self._holdings.vote)]
        unanswered = self.ledger.unanswered() if self.ledger is not None else []
        return [*self.say_ready(), *self._complaints(), *(Send(self.leader, observed) for observed in unanswered)]

    def _complaints(self) -> list[Action]:
        """Tell the leader which parts do not come; and try their owners again, for it may have been the connection."""
        actions: list[Action] = []
        if self.ledger is not None:
            for part in self.ledger.take_broken():
                attempt, owner = self.ledger.owners[part]
                actions.append(Send(self.leader, Suspect(term=self.term, part=part, attempt=attempt)))
                actions.append(Redirect(part, attempt, owner))
        return actions

    def _wait(self, now: float) -> None:
        """For the leader's next step, where it is its turn."""
        if self.begin is None:
            if self._holdings.update is not None:
                self._patience.wait(self.leader, now)
        elif self.voted:
            self._patience.wait(self.leader, now, SLOWER * (self.said_at - self._began_at))
        elif self._fetch_at is not None or (self.ledger is not None and self.ledger.lacking):
            self._patience.wait(self.leader, now)
