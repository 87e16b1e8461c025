"""Where the decoded results of one round come together, written straight into the vector that they make up."""

import sys

import numpy as np

from protocols.round.messages import PartResult
from protocols.round.parts import Grid
from protocols.vectors import Vector, read_only


class AggregateMemory:
    """The vector in which a round's results come together: one that is there already, for the kernel clears a new one.

    That in which our own update was made, once it is encoded; or, where what it is encoded to is the update itself, an
    earlier round's. As long as anybody else looks at it, as whoever serves or checks a round's results does, it is
    another one.
    """

    def __init__(self, count: int, *, keeps: bool) -> None:
        """`count`: elements. `keeps`: whether those of earlier rounds are used again."""
        self._count, self._keeps = count, keeps
        self._vectors: list[Vector] = []

    def offer(self, vector: Vector) -> None:
        """A vector of ours whose elements are of no use any more."""
        if vector.shape == (self._count,) and vector.dtype == np.float32 and vector.flags.carray:
            self._vectors = [vector]

    def take(self) -> Vector:
        """With anything in it."""
        free: Vector | None = None
        in_use: list[Vector] = []
        while self._vectors:
            vector = self._vectors.pop()
            if sys.getrefcount(vector) > _OWN_REFERENCES:
                in_use.append(vector)
            else:
                free = vector  # any other is let go: what all rounds need at a time is known by now
        taken = np.empty(self._count, dtype=np.float32) if free is None else free
        if self._keeps:
            self._vectors = [*in_use, taken]
        return taken


_OWN_REFERENCES = 2
"""Of `AggregateMemory.take` and of the question. Every view, and a view's view, has one more."""


class Aggregate:
    """Gives each attempt at a part room for its values, and puts the decided ones together.

    The first attempt at a chunk has its room in the vector itself. Any other has room of its own, because a thread of
    the first may still be writing; then the vector is put together from pieces in the end.
    """

    def __init__(self, grid: Grid, memory: AggregateMemory) -> None:
        self._grid, self._memory = grid, memory
        self._vector: Vector | None = None
        """From the first room on."""
        self._taken: set[int] = set()
        """Chunks whose room in the vector somebody has."""
        self._values: dict[PartResult, Vector] = {}

    def room(self, start: int, stop: int) -> Vector:
        """Memory for the values of the chunks start … stop − 1, for one attempt at them."""
        chunks = range(start, stop)
        elements = slice(self._grid.bounds(start).start, self._grid.bounds(stop - 1).stop)
        if self._taken.intersection(chunks):
            return np.empty(elements.stop - elements.start, dtype=np.float32)
        self._taken.update(chunks)
        if self._vector is None:
            self._vector = self._memory.take()
        return self._vector[elements]

    def keep(self, result: PartResult, values: Vector) -> None:
        """`values`: a room that now holds what `result` decodes to, and will not change any more."""
        self._values[result] = values

    def clear(self) -> None:
        """Lets go of all memory; whoever has been given some keeps it."""
        self._vector = None
        self._values.clear()

    def assemble(self, results: tuple[PartResult, ...]) -> Vector:
        """The whole vector (read-only) from `results`, which are the grid, in order, and have been kept."""
        pieces = [self._values[result] for result in results]
        if self._vector is not None and all(piece.base is self._vector for piece in pieces):
            return read_only(self._vector)
        return read_only(np.concatenate(pieces))
