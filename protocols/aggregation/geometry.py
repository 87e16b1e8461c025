"""Where the members' rows lie relative to one another: all that a Gram rule looks at.

The points are the n rows, then the origin, then the start of an iteration where there is one. Only differences of
points count, so their inner products may be taken about any reference, and about another one in every piece: the sum
of the owners' Gram matrices is the Gram matrix of the whole (about the references' concatenation). The result of a rule
is a combination of the points whose weights sum to one; a row clipped to half its length is half row, half origin.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
FAR_OF_FLOAT32 = 4.0
"""Squared distances: rows that are so much closer together than to the origin are not for float32, which has few digits
to lose."""
_LONGEST_OF_FLOAT32 = 1e30
"""Of a row that float32 combines with others: far below where it ends."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """`gram` holds inner products of the points about some reference near the honest rows; `rows` is n."""

    gram: Matrix
    rows: int

    @property
    def origin(self) -> int:
        return self.rows

    @property
    def start(self) -> int:
        """The point where an iteration starts: the previous result where there is one, else the origin."""
        return len(self.gram) - 1

    def mixed(self, matrix: Matrix) -> "Geometry":
        """The geometry whose rows are k combinations (`matrix`, k × points) of these points, with the same anchors."""
        anchored = np.vstack([matrix, np.eye(len(self.gram))[self.rows :]])
        return Geometry(anchored @ self.gram @ anchored.T, len(matrix))

    def squared_distances(self) -> Matrix:
        """Between the rows, n × n."""
        gram = self.gram[: self.rows, : self.rows]
        squares = np.diag(gram)
        distances = np.maximum(squares[:, None] + squares[None, :] - 2 * gram, 0)
        np.fill_diagonal(distances, 0)
        return distances

    def distances_to(self, weights: Matrix) -> Matrix:
        """Of the n rows to the combination of the points with these weights."""
        towards = self.gram @ weights
        squares = np.diag(self.gram) - 2 * towards + weights @ towards
        return np.sqrt(np.maximum(squares[: self.rows], 0))

    def norms(self) -> Matrix:
        """Of the n rows, about the origin."""
        return self.distances_to(self.point(self.origin))

    def about_origin(self) -> Matrix:
        """Inner products of the n rows about the origin."""
        rows, to_origin = self.gram[: self.rows, : self.rows], self.gram[: self.rows, self.origin]
        products: Matrix = rows - to_origin[:, None] - to_origin[None, :] + self.gram[self.origin, self.origin]
        return products

    def point(self, index: int) -> Matrix:
        """The weights that stand for one of the points."""
        weights = np.zeros(len(self.gram))
        weights[index] = 1
        return weights

    def average(self, rows: NDArray[np.intp]) -> Matrix:
        """The weights that stand for the mean of some rows."""
        weights = np.zeros(len(self.gram))
        weights[rows] = 1 / len(rows)
        return weights

    def is_spread(self) -> bool:
        """Whether the rows lie about as far from one another as from the origin, and none so far that float32 ends."""
        norms = self.norms()
        middle = float(np.median(norms))
        return 0 < middle <= FAR_OF_FLOAT32**0.5 * self.spread() and bool(norms.max() < _LONGEST_OF_FLOAT32)

    def spread(self) -> float:
        """The smallest distance from a row within which more than half of the rows lie: no minority can inflate it."""
        return float(np.sqrt(np.sort(self.squared_distances(), axis=1)[:, self.rows // 2].min()))
