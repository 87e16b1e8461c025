"""One owner's columns of the rows: their Gram matrix and combinations, block by block to need little memory."""

from collections.abc import Iterator
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from protocols.aggregation.geometry import FAR_OF_FLOAT32, Matrix

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
_SHORT_SUM = 512
"""Products that are added up in float32 before float64 goes on: distances are left with six or seven digits."""
_SMALLEST_SQUARE = 1e-30
"""Of an element, in the mean: far above where squares in float32 lose digits to underflow."""


def blocks(columns: int, rows: int, itemsize: int, first: int = 0) -> Iterator[slice]:
    """Pieces of the columns, from the `first` on, of which `rows` rows fit the cache."""
    width = max(1024, _BLOCK_BYTES // (itemsize * max(1, rows)))
    return (slice(start, min(columns, start + width)) for start in range(first, columns, width))


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
    attacker may not blind a rule by sending the reference. Rows of float32 that lie no closer to one another than to
    the origin are multiplied as they are, which is right to their own digits and takes a third of the time.
    """
    rows, columns = part.shape
    points = rows + 1 + (start is not None)
    gram = np.zeros((points, points))
    broken = np.zeros(rows, dtype=bool)
    reference = rows
    values, beginning = part.numpy(), None if start is None else start.numpy()
    scratch = np.empty((0, 0))
    taken = _add_float32(gram, values) if start is None and part.dtype is torch.float32 else 0
    for piece in blocks(columns, points - 1, 8, taken):
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


def combinations(part: Tensor, matrix: Matrix, *, in_float32: bool = False) -> Iterator[tuple[slice, Tensor]]:
    """Block by block, the piece of the columns and k combinations of the rows there, in the rows' type.

    `matrix` is k × n. Rows without weight are not read: what is in them cannot matter. The memory is the caller's until
    the next block. With `in_float32` rows of that type are not converted, and have to be finite.
    """
    used = np.flatnonzero(matrix.any(axis=0))
    weights = matrix[:, used]
    selects = matrix.shape[0] == len(used) and bool((weights == np.eye(len(used))).all())
    values = part.numpy()
    if in_float32 and values.dtype == np.float32 and not selects:
        yield from _combinations_of_float32(values, matrix.astype(np.float32))
        return
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


def _combinations_of_float32(values: Rows, weights: NDArray[np.float32]) -> Iterator[tuple[slice, Tensor]]:
    mixed = np.empty((0, 0), np.float32)
    for piece in blocks(values.shape[1], len(values), 4):
        mixed = _of_shape(mixed, len(weights), piece)
        np.matmul(weights, values[:, piece], out=mixed)
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
def _add_float32(gram: Matrix, values: Rows) -> int:
    """Adds the products about the origin of as many columns, from the left, as float32 is good enough for; how many."""
    rows, columns = values.shape
    sound = np.zeros(rows, dtype=bool)
    for piece in blocks(columns, rows, 4):
        products = np.zeros((rows + 1, rows + 1))
        products[:rows, :rows] = _short_sums(values[:, piece])
        to_most = _to_most(products, sound)
        nearest = float(to_most.min())
        is_far = not to_most[rows] <= FAR_OF_FLOAT32 * nearest
        if is_far or not nearest > _SMALLEST_SQUARE * (piece.stop - piece.start) or not np.isfinite(products).all():
            return int(piece.start)
        gram += products
    return int(columns)


def _short_sums(values: Rows) -> Matrix:
    """Inner products of rows of float32, a few columns at a time."""
    rows, columns = values.shape
    whole = columns - columns % _SHORT_SUM
    stack = values[:, :whole].reshape(rows, -1, _SHORT_SUM).transpose(1, 0, 2)
    rest = values[:, whole:]
    products: Matrix = np.matmul(stack, stack.transpose(0, 2, 1)).sum(axis=0, dtype=np.float64) + rest @ rest.T
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
    to_most = _to_most(products, broken)
    nearest = int(to_most.argmin())
    return nearest if to_most[reference] > _FAR * max(to_most[nearest], 0) else reference


def _to_most(products: Matrix, broken: Flags) -> Matrix:
    """Of the rows and the origin, the squared distances within which half of the rows that are not broken lie."""
    rows = len(broken)
    squares = products.diagonal()
    distances = (squares[:, None] + squares - 2 * products)[:, :rows]
    if broken.any():
        distances[:rows][broken] = distances[:, broken] = np.inf
    middle = (rows - int(broken.sum())) // 2
    to_most: Matrix = np.partition(distances, middle, axis=1)[:, middle]
    return to_most
