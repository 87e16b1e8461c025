"""Who takes which microbatch: leases on the microbatches that an epoch still lacks, without I/O.

One member of the run keeps the board, the others claim from it. It knows from the stage's peers what they have counted,
and from the trainers what they are at work on; so whoever takes a board over knows both after a moment, and hands out
nothing before all have spoken, or what they had is theirs no more. A lease is a courtesy that saves work: that no
microbatch counts twice is for each stage's round to see.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from protocols.identity import PeerId
from protocols.swarm.coverage import everything, numbers
from protocols.swarm.messages import OPEN_EPOCHS
from protocols.swarm.steps import come_to

LEASE_SECONDS = 3.0
"""Who claims nothing for so long has lost its microbatches to the others."""

Counted = Mapping[int, int]
"""Epoch → mask of the microbatches that a peer has counted; of each epoch that it is ready for."""


@dataclass(slots=True)
class Word:
    """What a peer of a stage last said of itself."""

    stage: int
    counted: Counted
    state_epoch: int
    """The epoch that its stage has still to step."""


@dataclass(slots=True)
class Lease:
    """What a trainer is at work on."""

    until: float
    held: dict[int, int] = field(default_factory=dict)
    """Epoch → mask."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How far the run is in one epoch."""

    epoch: int
    missing: tuple[int, ...]
    """By stage: the mask of the microbatches that nobody there has counted who lives."""

    @property
    def open(self) -> int:
        """What some stage lacks."""
        union = 0
        for mask in self.missing:
            union |= mask
        return union


class Board:
    def __init__(self, stages: int, microbatches: int, now: float) -> None:
        self._stages = stages
        self._all = everything(microbatches)
        self._since = now
        self._words: dict[PeerId, Word] = {}
        self._leases: dict[PeerId, Lease] = {}
        self._settled = False

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
        servers = set(servers)
        for peer in self._words.keys() - servers:
            del self._words[peer]
        heard = servers <= self._words.keys() and self._leases.keys() >= set(trainers)
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
        for word in self._words.values():
            if epoch in word.counted:
                missing[word.stage] &= ~word.counted[epoch]
                ready[word.stage] = True
        return Standing(epoch, tuple(missing)) if all(ready) else None

    def claim(self, trainer: PeerId, held: Mapping[int, int], wanted: int, now: float) -> tuple[int, int]:
        """`trainer` is at work on `held` (epoch → mask), and wants so many more: (epoch, mask of what it may take).

        It gets them of the oldest epoch that has any to give.
        """
        self._leases = {peer: lease for peer, lease in self._leases.items() if lease.until > now}
        lease = self._leases[trainer] = Lease(now + LEASE_SECONDS, dict(held))
        standings = self.standings()
        for standing in standings:
            granted = self._grant(standing, wanted)
            if granted:
                lease.held[standing.epoch] = lease.held.get(standing.epoch, 0) | granted
                return standing.epoch, granted
        return standings[0].epoch if standings else 0, 0

    def _grant(self, standing: Standing, wanted: int) -> int:
        taken = 0
        for lease in self._leases.values():
            taken |= lease.held.get(standing.epoch, 0)
        granted = 0
        for number in numbers(standing.open & ~taken):
            if granted.bit_count() >= wanted:
                break
            granted |= 1 << number
        return granted
