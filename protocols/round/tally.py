"""While an epoch is gathered: how far each member has come, when the leader is told, and when it is enough to close."""

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass

from protocols.identity import PeerId
from protocols.message import MAX_COUNT
from protocols.round.contributors import MOST_QUARRELS, Contributors
from protocols.round.deadlines import straggler_deadline
from protocols.round.electorate import Electorate
from protocols.round.events import Send, Trained
from protocols.round.messages import Progress, Standing
from protocols.round.setting import Setting
from protocols.swarm.coverage import everything, from_bytes, to_bytes, union

MOST_WORDS = 50
"""So often a leader is told within `Timing.resend` how far we are, at most."""
LONG_STEPS = 4
"""No more of them fit into `Timing.resend`."""
FRESH = 3.0
"""So many times `Timing.resend` what a leader has said of a stage's counts is how it is."""


@dataclass(slots=True)
class PeerView:
    """What we know of a member in this epoch."""

    client_mode: bool = False
    heard_after: float | None = None
    """Seconds from the round's start until it first spoke."""
    samples: int = 0
    covered: bytes = b""
    """In a pipeline: the microbatches that it has counted, …"""
    said_last: int = -1
    """… by its statement of that number; an older one may come after it."""
    complete: bool = False
    """Has nothing more to do in this epoch; one that does not train has not from the start."""
    complete_after: float = 0.0
    """Seconds from the round's start until its trainer was complete."""

    def come_to(self, samples: int, complete: bool, elapsed: float) -> bool:
        """Whether that makes it complete."""
        newly_complete = complete and not self.complete
        self.samples = max(self.samples, samples)
        if newly_complete:
            self.complete, self.complete_after = True, elapsed
        return newly_complete

    def count(self, samples: int, covered: bytes) -> None:
        """In a pipeline; fewer than before, if it has restarted or thrown away what another had counted, too."""
        self.samples, self.covered = samples, covered


class Tally:
    def __init__(
        self, setting: Setting, electorate: Electorate, expected: Mapping[PeerId, bool], late: Iterable[PeerId] = ()
    ) -> None:
        """`expected`: the members, and whether they are in client mode; `late` as in `Round`."""
        self.own = PeerView(setting.client_mode, heard_after=0.0, complete=not setting.trains)
        self.peers = {peer: PeerView(mode) for peer, mode in expected.items() if peer != setting.me}
        """The others."""
        self.answered: set[PeerId] = set()
        """Whom we, leading, have told how far the swarm is since we last told all."""
        self.told = 0
        """How many of ours our leader has been told of …"""
        self._heard: list[tuple[float, int]] = []
        """… and how many of the swarm's it has told us of: first, last, and when."""
        self._samples_per_second = 0.0
        self._stepped = self._step_seconds = 0.0
        """When we last came further, in seconds since the epoch began, and how many after the time before."""
        self.target = setting.target_samples
        """As in `Setting`, by what is known of the swarm now."""
        self.contributors = Contributors(setting, electorate)
        """In a pipeline, where we lead …"""
        self._counted: int | None = None
        """… and where another does: what counts by its word …"""
        self._counted_at = float("-inf")
        """… and when it said so."""
        self._overlooked = 0
        """Of ours, what it has not had in its word for a while."""
        self._refusals = 0
        """How often it has had us do again what we had counted."""
        self._setting, self._electorate = setting, electorate
        self._late = set(late)
        self._enough_after: float | None = None
        """Seconds from the round's start until the epoch could be closed, but for the late."""

    def know(self, peer: PeerId) -> PeerView:
        return self.peers.setdefault(peer, PeerView())

    def hear(self, sender: PeerId, elapsed: float) -> None:
        """`sender` has spoken. `elapsed`, here and below: seconds since the round's start."""
        view = self.know(sender)
        if view.heard_after is None:
            view.heard_after = elapsed
            if self._setting.is_of_cells:
                self._forget_others_of_cell(sender)

    def _forget_others_of_cell(self, representative: PeerId) -> None:
        """Whom we had taken for its representative."""
        cell_of = self._setting.cell_of
        for peer, view in list(self.peers.items()):
            if view.heard_after is None and cell_of(peer) == cell_of(representative):
                del self.peers[peer]

    def hear_progress(self, sender: PeerId, body: Progress, elapsed: float, sequence: int) -> None:
        """`sequence`: of the sender's statements."""
        view = self.know(sender)
        view.client_mode = body.client_mode
        if self._setting.microbatches and sequence > view.said_last:
            view.said_last = sequence
            view.count(body.samples, body.covered)
        elif not self._setting.microbatches:
            view.come_to(body.samples, body.complete, elapsed)

    def step(self, event: Trained, elapsed: float) -> bool:
        """We have come further; returns whether that makes us complete."""
        self._step_seconds, self._stepped = elapsed - self._stepped, elapsed
        self._samples_per_second = event.samples_per_second
        if not self._setting.microbatches:
            return self.own.come_to(event.samples, event.complete, elapsed)
        self.own.count(event.samples, event.covered)
        return False

    def progress(self) -> Progress:
        """How far we are."""
        return Progress(
            base=self._setting.base,
            samples=self.own.samples,
            covered=self.own.covered,
            complete=self.own.complete,
            client_mode=self._setting.client_mode,
            samples_per_second=self._samples_per_second,
            follows=self._setting.follows,
        )

    def tell(self) -> Progress:
        """The same, said to our leader."""
        self.told = self.own.samples
        return self.progress()

    def is_worth_telling(self, suspected: Set[PeerId], silent_seconds: float, elapsed: float) -> bool:
        """Whether our leader should hear how far we are, before it does anyway: it closes the epoch when it knows.

        `silent_seconds`: since it last was. Whose steps are long tells of each: till the next one the epoch would wait.
        """
        resend = self._setting.timing.resend
        if silent_seconds < resend / MOST_WORDS:
            return False
        steps_are_long = self._setting.microbatches > 0 or self._step_seconds >= resend / LONG_STEPS
        tells_of_each = steps_are_long and silent_seconds >= resend / LONG_STEPS
        return tells_of_each or self.is_far_from_told(suspected, elapsed)

    def is_far_from_told(self, suspected: Set[PeerId], elapsed: float) -> bool:
        """Whether half of what the swarm lacks would be there now, were all as fast as we since we last told of us.

        So our leader hears of us seldom at first, and more often as the epoch comes to its end.
        """
        if self.target is None:
            return False
        unsaid = len(self._views(suspected)) * (self.own.samples - self.told)
        return 2 * unsaid >= self.target - self._expected(elapsed)

    def _expected(self, elapsed: float) -> float:
        """How many samples the swarm is likely to have by now, if it goes on as it did since our leader first spoke."""
        if not self._heard:
            return 0
        (since, first), (until, last) = self._heard[0], self._heard[-1]
        pace = max(0, last - first) / (until - since) if until > since else 0.0
        return last + pace * (elapsed - until)

    def standing(self, suspected: Set[PeerId]) -> Standing:
        """How far the swarm is, for whoever leads it to say."""
        counted = to_bytes(union(self.contributing(suspected).values())) if self._setting.microbatches else b""
        return Standing(base=self._setting.base, samples=self.samples(suspected), covered=counted)

    def standings(self, suspected: Set[PeerId], to: Iterable[PeerId]) -> list[Send]:
        """The same, said to each; in a pipeline with what it has to do again."""
        said, again = self.standing(suspected), self.contributors.giving_way | self.contributors.out
        return [
            Send(peer, said.model_copy(update={"refused": self.know(peer).covered}) if peer in again else said)
            for peer in to
        ]

    def hear_standing(self, body: Standing, elapsed: float) -> None:
        """Our leader has told us how far the swarm is."""
        self._heard = [*self._heard[:1], (elapsed, body.samples)]
        if self._setting.microbatches:
            self._counted, self._counted_at = from_bytes(body.covered), elapsed
            self._refusals += bool(body.refused)

    def forget_leader(self) -> None:
        """It is another now."""
        self._counted, self._overlooked, self._refusals = None, 0, 0

    def counted(self, suspected: Set[PeerId], elapsed: float, *, leads: bool) -> bytes | None:
        """In a pipeline: what counts by the word of whoever leads; None where it has said nothing of late."""
        if leads:
            return to_bytes(union(self.contributing(suspected).values()))
        late = elapsed - self._counted_at > FRESH * self._setting.timing.resend
        return None if late or self._counted is None else to_bytes(self._counted)

    def is_overlooked(self) -> bool:
        """In a pipeline: whether something that we have counted has been missing from our leader's word since the last
        time that nothing was; or it has refused what we had more often than an honest one would."""
        lacking = from_bytes(self.own.covered) & ~(self._counted or 0)
        self._overlooked &= lacking
        was = self._overlooked > 0
        self._overlooked = self._overlooked or lacking
        return was or self._refusals > MOST_QUARRELS

    def samples(self, suspected: Set[PeerId]) -> int:
        """Of all who are not `suspected`."""
        return min(sum(view.samples for view in self._views(suspected)), MAX_COUNT)

    def is_enough(self, suspected: Set[PeerId], elapsed: float) -> bool:
        """Whether the epoch can be closed, for whoever leads it."""
        assembled = self._assembled_after(suspected)
        if assembled is None:
            return False
        if self._setting.microbatches:
            enough = self.is_covered(suspected)
        elif self.target is not None:
            enough = self.samples(suspected) >= self.target
        else:
            enough = self._enough_complete(suspected, assembled, elapsed)
        return enough and not self._waits_for_late(suspected, elapsed)

    def is_covered(self, suspected: Set[PeerId]) -> bool:
        """In a pipeline: whether each microbatch is counted by one of those who are there."""
        return union(self.contributing(suspected).values()) == everything(self._setting.microbatches)

    def contributing(self, suspected: Set[PeerId]) -> dict[PeerId, int]:
        """In a pipeline: the masks of what counts; no two of them have anything in common."""
        masks = {peer: from_bytes(view.covered) for peer, view in self.peers.items() if peer not in suspected}
        return self.contributors.choose(masks | {self._setting.me: from_bytes(self.own.covered)})

    def _waits_for_late(self, suspected: Set[PeerId], elapsed: float) -> bool:
        """Who fetches each result after its round could else come after each epoch's close for ever."""
        self._enough_after = elapsed if self._enough_after is None else self._enough_after
        here = {peer for peer, view in self.peers.items() if view.heard_after is not None}
        return bool(self._late - suspected - here) and elapsed < self._enough_after + self._setting.grace

    def seems_enough(self, suspected: Set[PeerId]) -> bool:
        """Whether it has all that it waits for, as far as a follower can know; or, in a pipeline, hides some of it."""
        if self._setting.microbatches:
            return self._counted == everything(self._setting.microbatches) or self.is_overlooked()
        if self.target is not None:
            return self.samples(suspected) >= self.target
        return self._setting.trains and self.own.complete

    def _views(self, suspected: Set[PeerId]) -> list[PeerView]:
        return [self.own, *(view for peer, view in self.peers.items() if peer not in suspected)]

    def _awaited_views(self, suspected: Set[PeerId]) -> list[PeerView]:
        """Of those whom the epoch stays open for; of all, where none of those has anything to train."""
        others = {p: view for p, view in self.peers.items() if p not in suspected and self._setting.awaits(p)}
        if self._setting.is_of_cells:
            others = self._without_represented(others)
        views = [self.own, *others.values()]
        return views if any(view.samples or not view.complete for view in views) else self._views(suspected)

    def _without_represented(self, others: Mapping[PeerId, PeerView]) -> dict[PeerId, PeerView]:
        """Without those whose cell another represents already."""
        cell_of = self._setting.cell_of
        here = {cell_of(peer) for peer, view in others.items() if view.complete} | {cell_of(self._setting.me)}
        return {peer: view for peer, view in others.items() if view.complete or cell_of(peer) not in here}

    def _assembled_after(self, suspected: Set[PeerId]) -> float | None:
        """How long it took until a quorum had spoken; None while there is none."""
        heard = sorted(view.heard_after for view in self._views(suspected) if view.heard_after is not None)
        quorum = self._electorate.quorum
        return heard[quorum - 1] if len(heard) >= quorum else None

    def _enough_complete(self, suspected: Set[PeerId], assembled: float, elapsed: float) -> bool:
        """Whether all trainers are complete, or at least half of them and the others have had their time.

        Their time counts from when a quorum had `assembled`: its last member may come long after the others are done.
        """
        trainers = [view for view in self._awaited_views(suspected) if view.samples or not view.complete]
        arrivals = [max(0.0, view.complete_after - assembled) for view in trainers if view.complete]
        if not arrivals or 2 * len(arrivals) < len(trainers):
            return False
        if len(arrivals) == len(trainers):
            return True
        deadline = straggler_deadline(arrivals, len(trainers), self._setting.timing)
        if 2 * len(arrivals) == len(trainers):  # no majority tells what is slow: twice the time of those who came
            deadline = max(arrivals) + max(deadline, *arrivals)
        return elapsed - assembled >= deadline
