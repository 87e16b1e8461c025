"""What the leader of one term does: collect `Ready`, name the group, mend parts, count votes.

    collecting   Close is out; until all who are awaited are Ready, or the stragglers' deadline   -> Begin
    begun        Begin is out; parts of dead owners are reassigned                               -> majority of votes
                 (where the rule looks at distances: Weigh, once the owners have observed all parts)
    decided      Done is out

A term is `stuck` when no majority of its group can vote for one outcome any more; the next term then starts.
"""

from collections import Counter
from collections.abc import Iterable
from statistics import median_low

from protocols.identity import PeerId
from protocols.message import Message
from protocols.probation import room_for
from protocols.round.checks import covers
from protocols.round.deadlines import straggler_deadline
from protocols.round.electorate import Electorate
from protocols.round.events import Action, Send
from protocols.round.messages import (
    MAX_OBSERVERS,
    UNMEASURED,
    Begin,
    Close,
    Done,
    Member,
    Observed,
    Part,
    PartResult,
    Prepared,
    Ready,
    Reassign,
    Suspect,
    Wait,
    Weigh,
)
from protocols.round.order import order
from protocols.round.parts import share
from protocols.round.setting import Setting
from protocols.round.tally import Tally
from protocols.signed import Signed
from protocols.suspension import Fault
from protocols.swarm.coverage import from_bytes, is_partition, to_bytes

FASTEST = 8.0
"""So many times the median speed is believed; who says more would reduce the whole vector alone."""
SLOWEST = 1 / 8
"""Who has less than this share of the median speed is spared."""
MINORITY_PATIENCE = 2.0
"""So many times `Timing.failure` a leader waits who has not half of those who made the last state: they may be back."""
COUNTS_PATIENCE = 2.0
"""In a pipeline: so many times `Timing.failure` a member is waited for that has counted, and is not ready."""

ROTATION = 4
"""Of a full group one in so many gives its place to who waits."""


class Leadership:
    def __init__(
        self,
        setting: Setting,
        term: int,
        invited: Iterable[PeerId],
        audience: Iterable[PeerId],
        electorate: Electorate,
        distrusted: Iterable[PeerId],
        tally: Tally,
        now: float,
    ) -> None:
        """`invited` are waited for, the `audience` is not; the `electorate` made the state that the epoch starts from.

        `distrusted`: whose claims to hold a result proved empty.
        """
        self.stuck = False
        self.incomplete = False
        """In a pipeline: all are Ready who are awaited, and some microbatch is counted by none of them, or by two."""
        self.begin: Begin | None = None
        self.decided = False
        self.faults: list[tuple[PeerId, Fault]] = []
        """Who kept this term waiting, and how."""
        self._setting = setting
        self._tally = tally
        self._promised = (
            {p: from_bytes(view.covered) for p, view in tally.peers.items()} if setting.microbatches else {}
        )
        """In a pipeline: what the others had counted when this term began."""
        self._term = term
        self._invited = list(invited)
        self._audience = set(audience)
        self._electorate = electorate
        self._distrusted = set(distrusted)
        self._opened = self._said_at = self._begun_at = now
        self._ready: dict[PeerId, Ready] = {}
        self._claims: dict[PeerId, Signed[Ready]] = {}
        """Those of them that claim results of an earlier term, and prove it."""
        self._arrivals: dict[PeerId, float] = {}
        """Seconds from the opening until each was Ready."""
        self._counting: set[PeerId] = set()
        """In a pipeline: whose counts make up the epoch."""
        self._deserted: set[PeerId] = set()
        self._owners: list[list[PeerId]] = []
        """Of each part: all its owners so far; the last one counts, its index is the attempt."""
        self._complaints: list[dict[PeerId, float]] = []
        """Of each part's latest attempt: who gets no result, since when."""
        self._observed: dict[int, Signed[Observed]] = {}
        """By part, of its latest attempt …"""
        self._observed_after: list[float] = []
        """… and how many seconds after `Begin` they came."""
        self._weigh: Weigh | None = None
        self._votes: dict[PeerId, Signed[Prepared]] = {}

    def open(self) -> list[Action]:
        all_others = [*self._invited, *sorted(self._audience.difference(self._invited))]
        return self._close(peer for peer in all_others if peer != self._setting.me)

    def hear(
        self, statement: Signed[Message], suspected: set[PeerId], now: float, *, proved: bool = False
    ) -> list[Action]:
        """`proved`: the results that a `Ready` claims are those of a leader."""
        sender = statement.sender
        match statement.body:
            case Ready() as body:
                if proved and self.begin is None:
                    self._claims[sender] = statement  # type: ignore[assignment]
                return self._hear_ready(sender, body, suspected, now)
            case Suspect(part=part, attempt=attempt):
                return self._hear_suspicion(sender, part, attempt, suspected, now)
            case Observed():
                return self._hear_observed(statement, suspected, now)  # type: ignore[arg-type]
            case Prepared():
                self._deserted.discard(sender)
                return self._hear_vote(statement, suspected)  # type: ignore[arg-type]
        return []

    def tick(self, suspected: set[PeerId], now: float) -> list[Action]:
        if self.decided:
            return []
        if self.begin is not None:
            self._check_majority(suspected)
            return self._replace_late_observers(suspected, now)
        actions = self._begin_when_ready(suspected, now)
        if self.begin is None and now - self._said_at >= self._setting.timing.resend:
            self._said_at = now
            actions += self._close(p for p in self._invited if p not in self._ready and p != self._setting.me)
        return actions

    def lose(self, peer: PeerId, suspected: set[PeerId], now: float) -> list[Action]:
        """`peer` cannot be reached (it is among the `suspected`)."""
        if self.begin is None:
            return self._begin_when_ready(suspected, now)
        if self._setting.microbatches and peer not in self._votes and self._contributes(peer):
            self.stuck = True
            return []
        actions: list[Action] = []
        for part, owners in enumerate(self._owners):
            if owners[-1] == peer and peer not in self._votes:
                actions += self._reassign(part, suspected)
        self._check_majority(suspected)
        return actions

    def desert(self, peer: PeerId, suspected: set[PeerId]) -> None:
        """`peer` has gone on to a higher term and will not vote in this one."""
        self._deserted.add(peer)
        self._check_majority(suspected)

    # -- collecting ---------------------------------------------------------------------------------------------------

    def _close(self, peers: Iterable[PeerId]) -> list[Action]:
        body = Close(base=self._setting.base, term=self._term)
        return [Send(peer, body) for peer in peers]

    def _hear_ready(self, sender: PeerId, body: Ready, suspected: set[PeerId], now: float) -> list[Action]:
        if self.begin is not None:
            if self._setting.microbatches and self._has_lost_its_update(sender, body):
                self.stuck = True
                return []
            self._audience.add(sender)  # we may not have known of it
            answers: list[Message] = [Wait(term=self._term)]
            if any(member.peer == sender for member in self.begin.members):
                answers = [self.begin, *self._reassignments(), *([self._weigh] if self._weigh else []), *answers]
            return [Send(sender, answer) for answer in answers]
        if sender not in self._ready:
            self._arrivals[sender] = now - self._opened
            if sender not in self._invited:
                self._invited.append(sender)
            self._hold_to_its_word(sender, from_bytes(body.covered))
        self._ready[sender] = body
        actions = self._begin_when_ready(suspected, now)
        if self.begin is None and sender != self._setting.me:
            actions.append(Send(sender, Wait(term=self._term)))
        return actions

    def _contributes(self, peer: PeerId) -> bool:
        return any(member.peer == peer and member.weight for member in (self.begin.members if self.begin else ()))

    def _has_lost_its_update(self, sender: PeerId, body: Ready) -> bool:
        """Whether it has restarted since, and no longer has what it committed to."""
        return self._contributes(sender) and body.root != self._ready[sender].root

    def _begin_when_ready(self, suspected: set[PeerId], now: float) -> list[Action]:
        self._wait_for_counts(suspected, now)
        awaited = self._awaited(suspected)
        here = [peer for peer in awaited if peer in self._ready and peer not in suspected]
        waited = now - self._opened
        enough = len(here) == len([p for p in awaited if p not in suspected])
        if not enough and 2 * len(here) > len(awaited):
            arrivals = [self._arrivals[peer] for peer in awaited if peer in self._arrivals]
            enough = waited >= straggler_deadline(arrivals, len(awaited), self._setting.timing)
        if not enough:
            enough = waited >= self._setting.timing.failure
        present = self._with_one_of_each_cell([peer for peer in self._ready if peer not in suspected])
        fit = self._without_suspended(present)
        present = fit if self._suffices(fit) else present
        if enough:
            self._look_at_counts(present, suspected)
        if not enough or self.incomplete or not self._suffices(present):
            return []
        if not self._electorate.may_go_on(present):
            enough = waited >= MINORITY_PATIENCE * self._setting.timing.failure
        if not enough:
            return []
        self.faults += [(peer, Fault.ABSENT) for peer in awaited if peer not in here]
        return self._begin(present, now)

    def _hold_to_its_word(self, sender: PeerId, covered: int) -> None:
        """In a pipeline: who is not ready with what it said to have, or is with what others have, is wrong."""
        if not self._setting.microbatches or sender not in self._promised:
            return
        said = self._promised[sender]
        lacks = said & from_bytes(self._tally.know(sender).covered) & ~covered
        others = [mask for peer, mask in self._promised.items() if peer != sender]
        if lacks or any(covered & ~said & mask for mask in others):
            self._tally.contributors.break_word(sender)

    def _look_at_counts(self, present: list[PeerId], suspected: set[PeerId]) -> None:
        """In a pipeline, unless results are carried over: notes whose counts make up the epoch, and whether they do."""
        self.incomplete = False
        if self._setting.microbatches and not self._claims:
            counting = self._tally.contributing(suspected)
            self._counting = {peer for peer in present if peer in counting}
            covered = [self._ready[peer].covered for peer in self._counting]
            self.incomplete = not is_partition(covered, self._setting.microbatches)

    def _wait_for_counts(self, suspected: set[PeerId], now: float) -> None:
        """In a pipeline: who is not ready with what it has counted is waited for only so long, in all terms."""
        if not self._setting.microbatches or self._claims:
            return
        counting = self._tally.contributing(suspected)
        absent = [p for p, mask in counting.items() if mask and p not in self._ready and p != self._setting.me]
        patience = COUNTS_PATIENCE * self._setting.timing.failure
        self._tally.contributors.wait_for(absent, self._opened, now - patience)

    def may_be_whole(self, suspected: set[PeerId]) -> bool:
        """In a pipeline: whether those who are ready have counted the whole epoch by now, in the next term."""
        ready = {peer: mask for peer, mask in self._tally.contributing(suspected).items() if peer in self._ready}
        return is_partition(map(to_bytes, ready.values()), self._setting.microbatches)

    def _awaited(self, suspected: set[PeerId]) -> list[PeerId]:
        """Of the newcomers no more than there is room for; of the suspended nobody, where the others suffice."""
        out = self._tally.contributors.out
        invited = [p for p in self._invited if p in self._ready or (p not in suspected and p not in out)]
        if self._setting.is_of_cells:
            here = {self._setting.cell_of(peer) for peer in self._ready}
            invited = [p for p in invited if p in self._ready or self._setting.cell_of(p) not in here]
        return self._with_some_newcomers(self._without_suspended(invited))

    def _with_one_of_each_cell(self, present: list[PeerId]) -> list[PeerId]:
        """All, but in the second of two levels: of each cell who has most samples behind it; we, of ours."""
        setting = self._setting
        if not setting.is_of_cells:
            return present
        best: dict[int, PeerId] = {}
        for peer in sorted(present, key=lambda peer: (peer != setting.me, -self._ready[peer].weight, peer)):
            best.setdefault(setting.cell_of(peer), peer)
        return list(best.values())

    def _suffices(self, present: list[PeerId]) -> bool:
        """Whether a round of these comes to something."""
        something = any(self._ready[peer].weight or peer in self._claims for peer in present)
        return something and self._setting.me in present and len(present) >= self._electorate.quorum

    def _without_suspended(self, peers: list[PeerId]) -> list[PeerId]:
        """All, where these would leave out more than a quarter of the electorate, or half of a small one.

        Who suspends so many may have the bad line itself; and who is left out has to recognise the others as a group.
        """
        if self._setting.microbatches:
            return peers  # what each has counted is needed
        fit = [peer for peer in peers if peer not in self._setting.suspended]
        voters = self._electorate.peers
        few = len(voters.intersection(peers).difference(fit)) <= max(1, len(voters) // 4)
        return fit if few and len(fit) >= self._electorate.quorum and self._electorate.most_in(fit, voters) else peers

    def _with_some_newcomers(self, peers: Iterable[PeerId]) -> list[PeerId]:
        """All who have served, and as many newcomers as there is room for, those who come first in the order.

        All, where nobody is left who has served: whoever is left out follows those alone who have.
        """
        setting = self._setting
        ranked = order(setting.draw, setting.epoch, peers)
        if setting.seniors is None or setting.seniors.isdisjoint(ranked):
            return ranked
        newcomers = [peer for peer in ranked if setting.is_newcomer(peer)]
        seniors, quorum = len(ranked) - len(newcomers), self._electorate.quorum
        room = room_for(setting.newcomers_share, seniors, quorum, setting.group_limit)
        turned_away = set(newcomers[room:])
        return [peer for peer in ranked if peer not in turned_away]

    def _begin(self, present: list[PeerId], now: float) -> list[Action]:
        setting = self._setting
        group = self._group(present)
        members = tuple(self._member(p) for p in group)
        adopted, holders, proof = self._carried_over(group)
        parts: tuple[Part, ...] = ()
        if not adopted:
            able = [p for p in group if not self._ready[p].client_mode] or [setting.me]
            owners, speeds = self._owners_with_speeds(able)
            runs = share(setting.chunks, owners, speeds)
            parts = tuple(Part(owner=owner, start=start, stop=stop) for owner, start, stop in runs)
        self._owners = [[part.owner] for part in parts]
        self._complaints = [{} for _ in parts]
        self._begun_at = now
        self.begin = Begin(
            base=setting.base,
            term=self._term,
            members=members,
            parts=parts,
            adopted=adopted,
            holders=holders,
            proof=proof,
        )
        return [Send(peer, self.begin) for peer in group]

    def _member(self, peer: PeerId) -> Member:
        ready = self._ready[peer]
        if self._setting.microbatches and not self._claims and peer not in self._counting:
            return Member(peer=peer, weight=0, root=None, key=ready.key)  # it votes, and contributes nothing
        return Member(peer=peer, weight=ready.weight, root=ready.root, key=ready.key, covered=ready.covered)

    def _group(self, present: list[PeerId]) -> list[PeerId]:
        """All, as far as they fit in; else most of the last group, and whoever comes first in the order.

        So those who are left out find most of the group that they have followed so far in the next one, too, and yet
        everybody's turn comes.
        """
        setting, limit = self._setting, self._setting.group_limit
        ranked = (
            order(setting.draw, setting.epoch, present)  # what each has counted is needed
            if setting.microbatches
            else self._with_some_newcomers(present)
        )
        staying = [peer for peer in ranked if peer in self._electorate.peers][: limit - limit // ROTATION]
        chosen = list(dict.fromkeys([self._setting.me, *staying, *ranked]))[:limit]
        return [peer for peer in ranked if peer in chosen]

    def _owners_with_speeds(self, able: list[PeerId]) -> tuple[list[PeerId], dict[PeerId, float]]:
        """What they say of themselves; who has measured nothing counts as ordinary, and none beyond FASTEST.

        Who is slower than SLOWEST owns nothing: all would wait for its part.
        """
        able = [peer for peer in able if peer not in self._setting.not_owning] or able
        said = {peer: self._ready[peer].speed for peer in able}
        ordinary = median_low([speed for speed in said.values() if speed != UNMEASURED] or [UNMEASURED])
        speeds = {peer: ordinary if speed == UNMEASURED else speed for peer, speed in said.items()}
        owners = [peer for peer in able if speeds[peer] >= SLOWEST * ordinary]
        if self._setting.weighs:
            fastest = sorted(owners, key=lambda peer: -speeds[peer])[:MAX_OBSERVERS]
            owners = [peer for peer in owners if peer in fastest]
        return owners, {peer: min(speeds[peer], FASTEST * ordinary) for peer in owners}

    def _carried_over(
        self, group: list[PeerId]
    ) -> tuple[tuple[PartResult, ...], tuple[PeerId, ...], tuple[bytes, ...]]:
        """The results voted for in the latest term that somebody here still holds, who holds them, and the proof.

        That may be this very term: a leader that has restarted leads it a second time.
        """
        claims = {
            p: self._claims[p].body
            for p in group
            if p in self._claims
            and p not in self._distrusted
            and covers(self._claims[p].body.held, self._setting.chunks)
        }
        if not claims:
            return (), (), ()
        latest = max(ready.held_term or 0 for ready in claims.values())
        counted = Counter(ready.held for ready in claims.values() if ready.held_term == latest)
        results = min(counted, key=lambda held: (-counted[held], [result.digest for result in held]))
        holders = tuple(peer for peer, ready in claims.items() if ready.held == results)
        return results, holders, (self._claims[holders[0]].wire,)

    # -- begun --------------------------------------------------------------------------------------------------------

    def _hear_suspicion(
        self, sender: PeerId, part: int, attempt: int, suspected: set[PeerId], now: float
    ) -> list[Action]:
        """Believed when the owner is suspected here too, when most complain, or when it goes on for too long."""
        if part >= len(self._owners) or attempt != len(self._owners[part]) - 1 or self.begin is None or self.decided:
            return []
        if not any(member.peer == sender for member in self.begin.members):
            return []
        owner = self._owners[part][-1]
        complaints = self._complaints[part]
        complaints.setdefault(sender, now)
        lasting = now - min(complaints.values()) > self._setting.timing.failure
        unserved = len(complaints.keys() - self._votes.keys())
        if owner in self._votes and 2 * unserved <= len(self.begin.members):
            # It has reduced its part. Who cannot get it from there gets it from the voters, in a term that adopts it.
            # Where most do not have it, nothing was decided with it: it may be withheld, and by all who voted for it.
            self.stuck = lasting
            self.faults += [(owner, Fault.WITHHELD)] if lasting else []
            return []
        others = [m.peer for m in self.begin.members if m.peer not in suspected and m.peer != owner]
        believed = owner in suspected or sender == owner or 2 * len(complaints) > len(others)
        return self._reassign(part, suspected) if believed or lasting else []

    def _hear_observed(self, statement: Signed[Observed], suspected: set[PeerId], now: float) -> list[Action]:
        """Who is missing from any part is left out of all, so an owner that misses too many loses its part."""
        body = statement.body
        if self.begin is None or self.decided or body.part >= len(self._owners):
            return []
        owners = self._owners[body.part]
        if (body.attempt, statement.sender) != (len(owners) - 1, owners[-1]):
            return []
        if self._weigh is not None:
            return [Send(statement.sender, self._weigh)]
        if self._misses_too_many(body):
            return self._reassign(body.part, suspected)
        if body.part not in self._observed:
            self._observed[body.part] = statement
            self._observed_after.append(now - self._begun_at)
        if len(self._observed) < len(self._owners):
            return [Send(statement.sender, Wait(term=self._term))]
        ordered = tuple(self._observed[part].wire for part in range(len(self._owners)))
        self._weigh = Weigh(term=self._term, observed=ordered)
        return [Send(member.peer, self._weigh) for member in self.begin.members]

    def _misses_too_many(self, body: Observed) -> bool:
        assert self.begin is not None
        wanted = included = sum(1 << n for n, member in enumerate(self.begin.members) if member.weight)
        for observed in (body, *(statement.body for statement in self._observed.values())):
            included &= observed.included
        missing = (wanted & ~included).bit_count()
        return 0 < self._setting.byzantine < missing or not included

    def _replace_late_observers(self, suspected: set[PeerId], now: float) -> list[Action]:
        """All owners wait for each other here, so who is far later than most loses its part."""
        if not self._setting.weighs or self._weigh is not None or not self._owners:
            return []
        if 2 * len(self._observed) <= len(self._owners):
            return []
        deadline = straggler_deadline(self._observed_after, len(self._owners), self._setting.timing)
        late = [part for part in range(len(self._owners)) if part not in self._observed]
        attempts = max(len(self._owners[part]) for part in late)
        if now - self._begun_at < attempts * deadline:  # each new owner has to gather the part anew
            return []
        return [action for part in late for action in self._reassign(part, suspected)]

    def _reassign(self, part: int, suspected: set[PeerId]) -> list[Action]:
        assert self.begin is not None
        self.faults.append((self._owners[part][-1], Fault.WITHHELD))
        able = [
            member.peer
            for member in self.begin.members
            if member.peer not in suspected
            and not self._ready[member.peer].client_mode
            and member.peer not in self._owners[part]
        ]
        if not able:
            self.stuck = True
            return []
        able = [peer for peer in able if peer not in self._setting.not_owning] or able
        self._owners[part].append(able[part % len(able)])
        self._complaints[part] = {}
        self._observed.pop(part, None)
        body = Reassign(term=self._term, part=part, attempt=len(self._owners[part]) - 1, owner=self._owners[part][-1])
        return [Send(member.peer, body) for member in self.begin.members]

    def _reassignments(self) -> list[Message]:
        return [
            Reassign(term=self._term, part=part, attempt=len(owners) - 1, owner=owners[-1])
            for part, owners in enumerate(self._owners)
            if len(owners) > 1
        ]

    def _hear_vote(self, vote: Signed[Prepared], suspected: set[PeerId]) -> list[Action]:
        if self.begin is None or self.decided:
            return []
        members = [member.peer for member in self.begin.members]
        if vote.sender not in members or not covers(vote.body.results, self._setting.chunks):
            return []
        self._votes.setdefault(vote.sender, vote)
        results = self._votes[vote.sender].body.results
        agreeing = [v for v in self._votes.values() if v.body.results == results]
        if 2 * len(agreeing) <= len(members):
            self._check_majority(suspected)
            return [Send(vote.sender, Wait(term=self._term))]
        self.decided = True
        done = Done(
            base=self._setting.base,
            term=self._term,
            members=tuple(members),
            results=results,
            votes=tuple(v.wire for v in agreeing),
        )
        return [
            Send(peer, done)
            for peer in dict.fromkeys([self._setting.me, *members, *self._invited, *sorted(self._audience)])
        ]

    def _check_majority(self, suspected: set[PeerId]) -> None:
        """Sets `stuck` when no outcome can get the votes of a majority of the group any more."""
        if self.begin is None or self.decided:
            return
        members = [member.peer for member in self.begin.members]
        silent = [p for p in members if p not in self._votes and p not in suspected and p not in self._deserted]
        counted = Counter(vote.body.results for vote in self._votes.values())
        most = max(counted.values(), default=0)
        self.stuck = 2 * (most + len(silent)) <= len(members)
