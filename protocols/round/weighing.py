"""Rules that look at the members' distances: what each owner sees of its part, and the weights that follow from all.

The owner of a part has gathered all of it before it can reduce any of it: it tells the leader what it sees
(`Observed`), the leader collects that of all parts (`Weigh`), and everybody derives the same weights from it. So the
rule runs on the whole vectors, though nobody has them. Members who are missing from some part are left out of all.
"""

from collections.abc import Sequence

import numpy as np

from protocols.rejection import Reason, Rejected
from protocols.round.messages import Observed, Weigh
from protocols.rules import Matrix
from protocols.signed import Signed, open_signed


def pack(gram: Matrix) -> bytes:
    """A symmetric matrix, each pair once, as little-endian float64."""
    return gram[np.triu_indices(len(gram))].astype("<f8").tobytes()


def unpack(data: bytes, points: int) -> Matrix:
    """points × points. Raises Rejected: wrong_shape, non_finite."""
    if len(data) != 8 * points * (points + 1) // 2:
        raise Rejected(Reason.WRONG_SHAPE, f"{len(data)} bytes are not the inner products of {points} points")
    values = np.frombuffer(data, "<f8")
    if not np.isfinite(values).all():
        raise Rejected(Reason.NON_FINITE, "an inner product is NaN or infinite")
    gram = np.zeros((points, points))
    gram[np.triu_indices(points)] = values
    return gram + np.triu(gram, 1).T


def open_weigh(statement: Signed[Weigh]) -> tuple[Signed[Observed], ...]:
    """What the owners have said, in the order of the parts. Raises Rejected as `open_signed` does, and malformed."""
    opened = tuple(open_signed(wire, Observed, run=statement.run) for wire in statement.body.observed)
    for part, observed in enumerate(opened):
        where = (observed.epoch, observed.body.term, observed.body.part)
        if where != (statement.epoch, statement.body.term, part):
            raise Rejected(Reason.MALFORMED, f"weigh: what {observed.sender} observed is of another part or term")
        unpack(observed.body.gram, observed.body.included.bit_count() + 1)
    return opened


def everywhere(observations: Sequence[Observed]) -> list[int]:
    """The members who are there in all parts, by number."""
    included = ~0
    for observed in observations:
        included &= observed.included
    return numbers_of(included)


def whole_gram(observations: Sequence[Observed], members: Sequence[int]) -> Matrix:
    """Inner products of these members and the origin over all parts. Raises Rejected as `unpack` does."""
    total = np.zeros((len(members) + 1, len(members) + 1))
    for observed in observations:
        numbers = numbers_of(observed.included)
        places = [*(numbers.index(member) for member in members), len(numbers)]
        total += unpack(observed.gram, len(numbers) + 1)[np.ix_(places, places)]
    return total


def numbers_of(mask: int) -> list[int]:
    return [number for number in range(mask.bit_length()) if mask >> number & 1]
