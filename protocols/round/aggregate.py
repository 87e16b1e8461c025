"""Where the decoded results of one round come together, written straight into the vector that they make up."""

import numpy as np

from protocols.round.messages import PartResult
from protocols.round.parts import Grid
from protocols.vectors import Vector, read_only


class Aggregate:
    """Gives each attempt at a part room for its values, and puts the decided ones together.

    The first attempt at a chunk has its room in the vector itself. Any other has room of its own, because a thread of
    the first may still be writing; then the vector is put together from pieces in the end.
    """

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._vector: Vector = np.empty(grid.count, dtype=np.float32)
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
        return self._vector[elements]

    def keep(self, result: PartResult, values: Vector) -> None:
        """`values`: a room that now holds what `result` decodes to, and will not change any more."""
        self._values[result] = values

    def clear(self) -> None:
        """Lets go of all memory; whoever has been given some keeps it."""
        self._vector = np.empty(0, dtype=np.float32)
        self._values.clear()

    def assemble(self, results: tuple[PartResult, ...]) -> Vector:
        """The whole vector (read-only) from `results`, which are the grid, in order, and have been kept."""
        pieces = [self._values[result] for result in results]
        if all(piece.base is self._vector for piece in pieces):
            return read_only(self._vector)
        return read_only(np.concatenate(pieces))
