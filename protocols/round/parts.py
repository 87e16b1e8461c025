"""How a flat vector is cut: a grid of chunks that depends on its length alone, and parts of whole chunks.

A chunk is the unit that is digested, sent, reduced and sent back; a part is the run of chunks that one member reduces.
Because the grid does not depend on the group, a member can commit to its update before it knows the group.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from protocols.identity import PeerId

MAX_CHUNK = 131_072
"""Elements. Small, so that results flow back soon after the first bytes have come in, and all is there soon after the
last: on a slow link a round waits at both ends for as long as a chunk takes."""
CHUNK_QUANTUM = 256
"""Chunks are whole blocks of the int8 codec."""
FEWEST_CHUNKS = 60
"""A small vector is cut at least so finely (where the quantum allows it), so that every member gets a part."""
DIVISOR = 12
"""A vector has a multiple of so many chunks (where the quantum allows it): 2, 3, 4, 6 or 12 owners have as many each.
One chunk more than the others', of some twenty, is what all would wait for."""


@dataclass(frozen=True, slots=True)
class Grid:
    """The chunks of a vector of `count` elements."""

    count: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError("a grid needs at least one element")

    @property
    def chunk_elements(self) -> int:
        """Elements of every chunk but the last."""
        chunks = _up(max(FEWEST_CHUNKS, -(-self.count // MAX_CHUNK)), DIVISOR)
        return _up(-(-self.count // chunks), CHUNK_QUANTUM)

    @property
    def chunks(self) -> int:
        return -(-self.count // self.chunk_elements)

    def bounds(self, chunk: int) -> slice:
        """The elements of `chunk`."""
        start = chunk * self.chunk_elements
        return slice(start, min(self.count, start + self.chunk_elements))

    def within(self, chunk: int, first: int) -> slice:
        """The elements of `chunk` in a vector that begins with chunk `first`."""
        offset = self.bounds(first).start
        bounds = self.bounds(chunk)
        return slice(bounds.start - offset, bounds.stop - offset)

    def size(self, chunk: int) -> int:
        bounds = self.bounds(chunk)
        return int(bounds.stop - bounds.start)


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def share(chunks: int, owners: Sequence[PeerId], speeds: Mapping[PeerId, float]) -> list[tuple[PeerId, int, int]]:
    """Runs of chunks `(owner, start, stop)`, in the order of `owners`, proportional to their speeds.

    Largest remainders get the chunks left over; an owner whose share is nothing is left out. Speeds are relative and
    positive. A swarm where nobody's speed is known passes equal ones.
    """
    if not owners:
        raise ValueError("a vector needs at least one owner")
    total = sum(speeds[owner] for owner in owners)
    exact = [chunks * speeds[owner] / total for owner in owners]
    counts = [int(value) for value in exact]
    by_remainder = sorted(range(len(owners)), key=lambda i: (counts[i] - exact[i], i))
    for i in by_remainder[: chunks - sum(counts)]:
        counts[i] += 1
    runs: list[tuple[PeerId, int, int]] = []
    start = 0
    for owner, count in zip(owners, counts, strict=True):
        if count:
            runs.append((owner, start, start + count))
            start += count
    return runs
