"""One owner's columns of the rows: their Gram matrix and combinations, block by block to need little memory."""

from collections.abc import Iterator
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from protocols.aggregation.geometry import Matrix

Flags = NDArray[np.bool_]
Indices = NDArray[np.intp]
Rows = NDArray[np.float32] | NDArray[np.float64]
Array = TypeVar("Array", NDArray[np.float32], NDArray[np.float64], Rows)
_BLOCK_BYTES = 1 << 21
"""Of scratch: what stays in a cache, while a block takes far longer than the Python around it."""
_LARGEST_SQUARE = 1e290
"""Squared length from which a float64 row counts as infinite: distances would overflow. No float32 row is so long."""
_FAR = 1e6
"""Squared distances: a reference farther than this from most rows costs them six of float64's sixteen digits."""


def blocks(columns: int, rows: int, itemsize: int) -> Iterator[slice]:
    """Pieces of the columns of which `rows` rows fit the cache."""
    width = max(1024, _BLOCK_BYTES // (itemsize * max(1, rows)))
    return (slice(start, min(columns, start + width)) for start in range(0, columns, width))


def finite_marks(part: Tensor, points: int) -> Matrix:
    """points × points zeros, NaN on the diagonal for each of the rows (n × d) with a NaN or an infinity."""
    marks = np.zeros((points, points))
    for index, row in enumerate(part):
        if not torch.isfinite(row.sum()):  # no sum of NaN or infinity is finite; a sum of the largest floats may not be
            finite = all(bool(torch.isfinite(row[piece]).all()) for piece in blocks(len(row), 1, row.element_size()))
            marks[index, index] = 0.0 if finite else np.nan
    return marks


def partial_gram(part: Tensor, start: Tensor | None) -> Matrix:
    """Inner products of the points (n rows, origin, start) over these columns, about a point that is near most rows.

    `part` is n × d, `start` d elements. The products are float64, NaN for each row with a NaN or an infinity. Distances
    between rows that lie close to one another keep their digits, however far away the others, or the origin, lie: an
    attacker may not blind a rule by sending the reference.
    """
    rows, columns = part.shape
    points = rows + 1 + (start is not None)
    gram = np.zeros((points, points))
    broken = np.zeros(rows, dtype=bool)
    reference = rows
    values, beginning = part.numpy(), None if start is None else start.numpy()
    scratch = np.empty((0, 0))
    for piece in blocks(columns, points - 1, 8):
        scratch = _of_shape(scratch, points - 1, piece)
        for _ in range(rows + 1):
            products = _products(scratch, values, beginning, piece, broken, reference)
            if (
                not products.diagonal().max() < _LARGEST_SQUARE
                and (beyond := _too_long(values[:, piece], broken)).any()
            ):
                broken |= beyond
                if broken.all():
                    return np.full((points, points), np.nan)
                better = rows if reference < rows and broken[reference] else reference
            else:
                better = _near_most(products[: rows + 1, : rows + 1], broken, reference)
                if better == reference:
                    break
            reference = better
        gram += products
    gram[:rows][broken] = np.nan
    gram[:, :rows][:, broken] = np.nan
    return gram


def combinations(part: Tensor, matrix: Matrix) -> Iterator[tuple[slice, Tensor]]:
    """Block by block, the piece of the columns and k combinations of the rows there, in the rows' type.

    `matrix` is k × n. Rows without weight are not read: what is in them cannot matter. The memory is the caller's until
    the next block.
    """
    used = np.flatnonzero(matrix.any(axis=0))
    weights = matrix[:, used]
    selects = matrix.shape[0] == len(used) and bool((weights == np.eye(len(used))).all())
    values = part.numpy()
    mixed, taken = np.empty((0, 0), values.dtype), np.empty((0, 0))
    for piece in blocks(part.shape[1], len(part), part.element_size() if selects else 8):
        mixed = _of_shape(mixed, len(matrix), piece)
        if selects:
            _take(mixed, values, used, piece)
        else:
            taken = _of_shape(taken, len(used), piece)
            _take(taken, values, used, piece)
            _mix(mixed, weights, taken)
        yield piece, torch.from_numpy(mixed)


@np.errstate(all="ignore")
def _mix(into: Rows, weights: Matrix, rows: Matrix) -> None:
    into[:] = weights @ rows  # of the largest floats may be infinite


def _take(into: Rows, values: Rows, rows: Indices, piece: slice) -> None:
    if len(rows) == len(values):
        into[:] = values[:, piece]
        return
    for place, row in enumerate(rows.tolist()):
        into[place] = values[row, piece]


def _of_shape(scratch: Array, rows: int, piece: slice) -> Array:
    """The scratch memory, or new one of its type where the last piece is shorter."""
    width = piece.stop - piece.start
    return scratch if scratch.shape == (rows, width) else np.empty((rows, width), scratch.dtype)


@np.errstate(all="ignore")
def _products(scratch: Matrix, values: Rows, start: Rows | None, piece: slice, broken: Flags, reference: int) -> Matrix:
    """Inner products of the points over one piece, about the origin or one of the rows; broken rows count as zero.

    The reference's own difference is zero, so the origin's takes its place: one row less to multiply.
    """
    rows = len(values)
    scratch[:rows] = values[:, piece]
    if start is not None:
        scratch[rows] = start[piece]
    if broken.any():
        scratch[:rows][broken] = 0
    places = np.arange(len(scratch))
    places[rows:] += 1
    if reference < rows:
        centre = scratch[reference].copy()
        scratch[reference] = 0
        scratch -= centre
        places[reference] = rows
    products = np.zeros((len(scratch) + 1, len(scratch) + 1))
    products[places[:, None], places] = scratch @ scratch.T  # of one matrix: numpy computes half, which torch does not
    return products


@np.errstate(all="ignore")
def _too_long(values: Rows, broken: Flags) -> Flags:
    """The rows, of those that are not broken yet, with a NaN, an infinity or squares whose sum no float64 holds."""
    short: Flags = (values.astype(np.float64) ** 2).sum(axis=1) < _LARGEST_SQUARE
    return ~(broken | short)


def _near_most(products: Matrix, broken: Flags, reference: int) -> int:
    """The reference, unless most rows lie far from it compared to how they lie about another point.

    `products` are those of the rows and the origin, which is a reference as good as another.
    """
    rows = len(broken)
    squares = products.diagonal()
    distances = (squares[:, None] + squares - 2 * products)[:, :rows]
    if broken.any():
        distances[:rows][broken] = distances[:, broken] = np.inf
    middle = (rows - int(broken.sum())) // 2
    to_most = np.partition(distances, middle, axis=1)[:, middle]
    nearest = int(to_most.argmin())
    return nearest if to_most[reference] > _FAR * max(to_most[nearest], 0) else reference
