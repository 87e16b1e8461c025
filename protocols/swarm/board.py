"""Who takes which microbatch: leases on the microbatches that an epoch still lacks, without I/O.

One member of the run keeps the board, the others claim from it. It knows from the stage's peers what they have counted,
and from the trainers what they are at work on; so whoever takes a board over knows both after a moment, and hands out
nothing before all have spoken, or what they had is theirs no more. A lease is a courtesy that saves work: that no
microbatch counts twice is for each stage's round to see. It ends where others wait for it: what a trainer has had for
long goes to one that has nothing left to do, and what the trainer says to have counts for little for a while. So it is
with what a stage's peer says to have counted: of what half of its stage have not heard from their round's leader for
some seconds the board does not believe it. To be wrong in this costs work; to believe a liar would cost the run.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from protocols.backoff import doubled
from protocols.identity import PeerId
from protocols.swarm.coverage import everything, lacked_by_half, numbers, union
from protocols.swarm.messages import OPEN_EPOCHS
from protocols.swarm.pace import Pace
from protocols.swarm.steps import come_to

LEASE_SECONDS = 3.0
"""Who claims nothing for so long has lost its microbatches to the others."""
FIRST_HELD_SECONDS = 20.0
"""So long a microbatch is one trainer's before the first step that is seen; after it …"""
HELD_SECONDS, HELD_EPOCHS = 6.0, 2.0
"""… so long at least, and as long as so many epochs usually take: less than trainers' patience with the keeper."""
UNKNOWN_SECONDS = 6.0
"""In so long a leader has heard what is counted, and a stage has heard it of its leader, also when that is another."""
UNHEEDED_SECONDS, MOST_UNHEEDED_SECONDS = 30.0, 3600.0
"""Who has kept others waiting keeps nothing from them for so long, then twice as long each time, up to the second."""

Counted = Mapping[int, int]
"""Epoch → mask of the microbatches that a peer has counted; of each epoch that it is ready for."""


@dataclass(slots=True)
class Word:
    """What a peer of a stage last said of itself."""

    stage: int
    counted: Counted
    state_epoch: int
    """The epoch that its stage has still to step."""
    known: int | None = None
    """Of that one: what the whole stage has counted, by the word of its round's leader, if it knows."""


@dataclass(slots=True)
class Lease:
    """What a trainer is at work on."""

    until: float
    held: dict[int, int] = field(default_factory=dict)
    """Epoch → mask."""


@dataclass(slots=True)
class Taken:
    """The open microbatches of an epoch that some trainer has, and since when."""

    mask: int = 0
    since: dict[int, float] = field(default_factory=dict)
    """Of each open one: when it was handed out, or said to be somebody's for the first time. To let go of it for a
    moment, and to have it again, makes it no younger."""

    def note(self, still_open: int, held: int, now: float) -> None:
        self.mask = still_open & held
        self.since = {number: since for number, since in self.since.items() if still_open >> number & 1}
        for number in numbers(self.mask):
            self.since.setdefault(number, now)

    def begin_again(self, mask: int, now: float) -> None:
        """Somebody else has them from now on."""
        self.since.update(dict.fromkeys(numbers(mask), now))


@dataclass(slots=True)
class Unknown:
    """Of what a peer has counted, that of which its stage does not know."""

    mask: int = 0
    since: float = 0.0

    def note(self, mask: int, now: float) -> None:
        self.mask &= mask
        if not self.mask:
            self.mask, self.since = mask, now


@dataclass(slots=True)
class Unheeded:
    """A trainer that has kept others waiting, or a stage's peer that has counted what its stage does not know of."""

    times: int = 0
    until: float = float("-inf")

    def begin(self, now: float) -> None:
        if now >= self.until:
            self.until = now + doubled(UNHEEDED_SECONDS, self.times, MOST_UNHEEDED_SECONDS)
            self.times += 1


_NEVER = Unheeded()


@dataclass(frozen=True, slots=True)
class Standing:
    """How far the run is in one epoch."""

    epoch: int
    missing: tuple[int, ...]
    """By stage: the mask of the microbatches that nobody there has counted who lives."""

    @property
    def open(self) -> int:
        """What some stage lacks."""
        return union(self.missing)


class Board:
    def __init__(self, stages: int, microbatches: int, now: float) -> None:
        self._stages = stages
        self._all = everything(microbatches)
        self._since = now
        self._words: dict[PeerId, Word] = {}
        self._leases: dict[PeerId, Lease] = {}
        self._settled = False
        self._pace = Pace(now)
        self._taken: dict[int, Taken] = {}
        """Of each open epoch."""
        self._unheeded: dict[PeerId, Unheeded] = {}
        self._unknown: dict[PeerId, Unknown] = {}
        self._doubted: dict[PeerId, Unheeded] = {}
        """Those of the stages' peers of whose counts their stages have not known for too long."""
        self._now = now

    def hear(self, peer: PeerId, word: Word) -> None:
        """What it had counted of an epoch that it has stepped is remembered: its fellows may not have come so far."""
        before = self._words.get(peer)
        if before is not None and before.stage == word.stage:
            newest = range(word.state_epoch - OPEN_EPOCHS, word.state_epoch)
            word.counted = {e: mask for e, mask in before.counted.items() if e in newest} | dict(word.counted)
        self._words[peer] = word

    def keep_only(self, servers: Iterable[PeerId], trainers: Iterable[PeerId], now: float) -> None:
        """Forgets who does not serve a stage any more; what they have counted is lost.

        Of a new board, these are who is to be heard first.
        """
        servers, trainers = set(servers), set(trainers)
        self._unheeded = {p: each for p, each in self._unheeded.items() if p in trainers or p in self._leases}
        for peer in self._words.keys() - servers:
            del self._words[peer]
            self._unknown.pop(peer, None)
            self._doubted.pop(peer, None)
        self._doubt(now)
        heard = servers <= self._words.keys() and self._leases.keys() >= trainers
        self._settled |= heard or now - self._since >= LEASE_SECONDS

    @property
    def epoch(self) -> int | None:
        """The epoch that some stage has still to step; None while a stage has no peer."""
        steps = self._steps()
        return min(steps.values()) if len(steps) == self._stages else None

    def _steps(self) -> dict[int, int]:
        """Stage → the epoch that it has to step, of those that have peers."""
        said: dict[int, list[int]] = {}
        for word in self._words.values():
            said.setdefault(word.stage, []).append(word.state_epoch)
        return {stage: come_to(epochs) for stage, epochs in said.items()}

    def standings(self) -> list[Standing]:
        """Of the epochs that all stages are ready for, the oldest first; none before all had the time to be heard."""
        oldest = self.epoch
        if oldest is None or not self._settled:
            return []
        found = []
        epoch = oldest
        while (standing := self._standing(epoch)) is not None:
            found.append(standing)
            epoch += 1
        return found

    def _standing(self, epoch: int) -> Standing | None:
        missing = [self._all] * self._stages
        ready = [False] * self._stages
        for stage, step in self._steps().items():
            if step > epoch:
                missing[stage] = 0
                ready[stage] = True
        for peer, word in self._words.items():
            if epoch in word.counted:
                missing[word.stage] &= ~self._believed(peer, word, epoch)
                ready[word.stage] = True
        return Standing(epoch, tuple(missing)) if all(ready) else None

    def _doubt(self, now: float) -> None:
        self._now = now
        for peer, word in self._words.items():
            unknown = self._unknown.setdefault(peer, Unknown())
            unknown.note(self._unknown_to_its_stage(word), now)
            if unknown.mask and now - unknown.since > UNKNOWN_SECONDS:
                self._doubted.setdefault(peer, Unheeded()).begin(now)

    def _unknown_to_its_stage(self, word: Word) -> int:
        fellows = (w for w in self._words.values() if (w.stage, w.state_epoch) == (word.stage, word.state_epoch))
        return lacked_by_half(word.counted.get(word.state_epoch, 0), [fellow.known for fellow in fellows])

    def _believed(self, peer: PeerId, word: Word, epoch: int) -> int:
        counted = word.counted[epoch]
        if epoch != word.state_epoch or self._now >= self._doubted.get(peer, _NEVER).until:
            return counted
        return counted & ~self._unknown_to_its_stage(word)

    def claim(self, trainer: PeerId, held: Mapping[int, int], wanted: int, now: float) -> tuple[int, int]:
        """`trainer` is at work on `held` (epoch → mask), and wants so many more: (epoch, mask of what it may take).

        It gets them of the oldest epoch that has any to give.
        """
        self._leases = {peer: lease for peer, lease in self._leases.items() if lease.until > now}
        lease = self._leases[trainer] = Lease(now + LEASE_SECONDS, dict(held))
        standings = self.standings()
        if standings:
            self._pace.look(standings[0].epoch, now)
        self._note_taken(standings, now)
        for standing in standings:
            granted = self._grant(standing, trainer, wanted, now)
            if granted:
                lease.held[standing.epoch] = lease.held.get(standing.epoch, 0) | granted
                self._taken[standing.epoch].begin_again(granted, now)
                return standing.epoch, granted
        return standings[0].epoch if standings else 0, 0

    def _grant(self, standing: Standing, trainer: PeerId, wanted: int, now: float) -> int:
        free = standing.open & ~self._taken[standing.epoch].mask
        if not free and not standing.open & self._held(standing.epoch, [trainer]):
            heeded = [peer for peer in self._leases if now >= self._unheeded.get(peer, _NEVER).until]
            free = standing.open & ~self._held(standing.epoch, heeded)
            free = free or self._given_up(standing, wanted, now)
        granted = 0
        for number in numbers(free):
            if granted.bit_count() >= wanted:
                break
            granted |= 1 << number
        return granted

    def _given_up(self, standing: Standing, wanted: int, now: float) -> int:
        """So many of the microbatches that others have had for too long; for whoever has nothing else to do."""
        longest, given_up = self.held_seconds, 0
        for number, since in self._taken[standing.epoch].since.items():
            if given_up.bit_count() < wanted and now - since > longest:
                given_up |= 1 << number
        for peer in self._leases:
            if given_up & self._held(standing.epoch, [peer]):
                self._unheeded.setdefault(peer, Unheeded()).begin(now)
        return given_up

    def _held(self, epoch: int, trainers: Iterable[PeerId]) -> int:
        """What they say to be at work on."""
        return union(self._leases[peer].held.get(epoch, 0) for peer in trainers)

    @property
    def held_seconds(self) -> float:
        """How long a microbatch is one trainer's, where others have nothing else to do."""
        usual = self._pace.usual_seconds
        return max(HELD_SECONDS, HELD_EPOCHS * usual) if usual else FIRST_HELD_SECONDS

    def _note_taken(self, standings: Sequence[Standing], now: float) -> None:
        self._taken = {standing.epoch: self._taken.get(standing.epoch, Taken()) for standing in standings}
        for standing in standings:
            self._taken[standing.epoch].note(standing.open, self._held(standing.epoch, self._leases), now)
