"""Who mixes with whom in an epoch: a function of the run, the epoch and the roster alone.

Peers whose rosters differ for a moment draw different graphs. That costs an exchange that only one of the two expects,
and nothing else: who is called answers, whatever it has drawn itself.

Each link has a caller, so that a pair meets once an epoch and not twice. In an epoch every peer has `degree` links at
most, and gives the difference to each neighbour the weight 1 / (degree + 1): with one link two peers meet in the
middle, and any graph of such links has a mixing matrix that is symmetric, doubly stochastic and never overshoots
(Metropolis-Hastings weights; Xiao & Boyd 2004, "Fast linear iterations for distributed averaging", section 4.2).
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

from protocols.identity import PeerId
from protocols.manifest import Gossip
from protocols.round.order import order

Link = tuple[PeerId, PeerId]
"""Caller and callee."""
FIXED = 0
"""The draw of orders that do not change with the epoch; later ones have numbers of their own."""


class Pattern(ABC):
    """Links between places 0 … count − 1 of one order of the roster."""

    @abstractmethod
    def links(self, count: int) -> Iterator[tuple[int, int]]:
        """(Place of the caller, place of the callee)."""

    @abstractmethod
    def links_at(self, place: int, count: int) -> Iterator[tuple[int, int]]:
        """Those of `links` that one place has, in the same order."""


@dataclass(frozen=True)
class Pairs(Pattern):
    """The first with the second, the third with the fourth, …; of an odd count the last is left over."""

    def links(self, count: int) -> Iterator[tuple[int, int]]:
        for place in range(0, count - 1, 2):
            yield place, place + 1

    def links_at(self, place: int, count: int) -> Iterator[tuple[int, int]]:
        if place | 1 < count:
            yield place & ~1, place | 1


@dataclass(frozen=True)
class Dimension(Pattern):
    """Of a hypercube: places that differ in one bit alone."""

    bit: int

    def links(self, count: int) -> Iterator[tuple[int, int]]:
        for place in range(count):
            if not place & self.bit:
                yield from self.links_at(place, count)

    def links_at(self, place: int, count: int) -> Iterator[tuple[int, int]]:
        if place | self.bit < count:
            yield place & ~self.bit, place | self.bit


@dataclass(frozen=True)
class Cycle(Pattern):
    """Each place calls the next; of two the first calls the second."""

    def links(self, count: int) -> Iterator[tuple[int, int]]:
        if count > 1:
            yield from ((place, (place + 1) % count) for place in range(count))

    def links_at(self, place: int, count: int) -> Iterator[tuple[int, int]]:
        if count > 1:
            yield from ((caller, (caller + 1) % count) for caller in sorted(((place - 1) % count, place)))


@dataclass(frozen=True)
class Topology(ABC):
    """Patterns of links, each in an order of the roster."""

    degree: int
    """Links of one peer in an epoch, at most."""

    @abstractmethod
    def patterns(self, count: int, epoch: int) -> Iterator[tuple[int, Pattern]]:
        """(Draw of an order, what is linked in it), for a roster of `count`."""


@dataclass(frozen=True)
class RandomPairs(Topology):
    """Perfect matchings, each epoch another one (randomised gossip, Boyd et al. 2006, drawn for all at once).

    With an odd roster one peer is left over.
    """

    degree: int = 1

    def patterns(self, count: int, epoch: int) -> Iterator[tuple[int, Pattern]]:
        yield epoch + 1, Pairs()


@dataclass(frozen=True)
class Exponential(Topology):
    """The one-peer exponential graph (Ying et al. 2021, "Exponential Graph is Provably Efficient for Decentralized Deep
    Training", section 4) in its symmetric form, the one-peer hypercube: in epoch e two meet whose places differ in bit
    e mod ⌈log2 n⌉ alone.

    Exact after log2 n epochs when n is a power of two. For other n, whose hypercube has gaps, some meet nobody now and
    then.
    """

    degree: int = 1

    def patterns(self, count: int, epoch: int) -> Iterator[tuple[int, Pattern]]:
        if count > 1:
            yield FIXED, Dimension(1 << epoch % (count - 1).bit_length())


@dataclass(frozen=True)
class Ring(Topology):
    """Each with the next, in an order that stays: for comparison, for it mixes in O(n²) epochs."""

    degree: int = 2

    def patterns(self, count: int, epoch: int) -> Iterator[tuple[int, Pattern]]:
        yield FIXED, Cycle()


@dataclass(frozen=True)
class RandomRegular(Topology):
    """Each epoch another random graph in which everybody has `degree` neighbours: as many cycles through random orders
    as are half of it, and a matching where it is odd (the permutation model; Friedman 2008: nearly the largest spectral
    gap that a graph of that degree can have). Two cycles may share a link, which then counts once.
    """

    def patterns(self, count: int, epoch: int) -> Iterator[tuple[int, Pattern]]:
        draws = (self.degree + 1) // 2
        first = 1 + draws * epoch
        for draw in range(first, first + self.degree // 2):
            yield draw, Cycle()
        if self.degree % 2:
            yield first + draws - 1, Pairs()


def topology_of(training: Gossip) -> Topology:
    """The topology that a manifest names."""
    match training.topology:
        case "random":
            return RandomPairs()
        case "exponential":
            return Exponential()
        case "ring":
            return Ring()
        case "regular":
            return RandomRegular(training.degree)


@dataclass(frozen=True)
class Graph:
    """The links of one epoch, each once."""

    links: tuple[Link, ...]

    @cached_property
    def callees(self) -> Mapping[PeerId, tuple[PeerId, ...]]:
        """Whom each peer calls."""
        return _by_first(self.links)

    @cached_property
    def neighbours(self) -> Mapping[PeerId, tuple[PeerId, ...]]:
        """With whom each peer is linked, called or calling."""
        return _by_first([*self.links, *((callee, caller) for caller, callee in self.links)])


def draw_graph(topology: Topology, run: str, epoch: int, roster: frozenset[PeerId]) -> Graph:
    """Who mixes with whom in that epoch."""
    links: dict[frozenset[PeerId], Link] = {}
    for draw, pattern in topology.patterns(len(roster), epoch):
        places = _ordered(run, draw, roster)
        for caller, callee in pattern.links(len(roster)):
            link = (places[caller], places[callee])
            links.setdefault(frozenset(link), link)
    return Graph(tuple(links.values()))


def links_of(
    topology: Topology, run: str, epoch: int, roster: frozenset[PeerId], me: PeerId
) -> tuple[tuple[PeerId, ...], tuple[PeerId, ...]]:
    """Whom `me` of the roster calls in that epoch, and who calls it: as in `draw_graph`, at a fraction of its cost."""
    linked: dict[PeerId, bool] = {}
    for draw, pattern in topology.patterns(len(roster), epoch):
        places = _ordered(run, draw, roster)
        mine = places.index(me)
        for caller, callee in pattern.links_at(mine, len(roster)):
            linked.setdefault(places[callee if caller == mine else caller], caller == mine)
    callees = tuple(peer for peer, calls in linked.items() if calls)
    return callees, tuple(peer for peer, calls in linked.items() if not calls)


@lru_cache(maxsize=64)
def _ordered(run: str, draw: int, roster: frozenset[PeerId]) -> list[PeerId]:
    return order(run, draw, roster)


def _by_first(links: list[Link] | tuple[Link, ...]) -> dict[PeerId, tuple[PeerId, ...]]:
    gathered: dict[PeerId, list[PeerId]] = {}
    for first, second in links:
        gathered.setdefault(first, []).append(second)
    return {peer: tuple(others) for peer, others in gathered.items()}
