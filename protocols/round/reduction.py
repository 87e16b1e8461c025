"""What the owner of a part does with the chunks of its senders; chunk by chunk, without I/O.

With a coordinate-wise rule each chunk is reduced as soon as it is there. With one that looks at distances all chunks
are observed first, and reduced when it is known what the others have observed of theirs.

A chunk is reduced when every sender that is still counted on has delivered it. A sender that is dropped (it broke off,
is too slow, or sent something wrong) counts for the chunks it has delivered, and not for the rest: each reduced chunk
says whose updates it is made of. Methods that do arithmetic on whole chunks are meant for a worker thread; for one
chunk they may run beside the others.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from protocols.codecs import Codec, Payload
from protocols.encoding import digest
from protocols.rejection import Reason, Rejected
from protocols.round.messages import Contribution, Member, Observed, Part, commitment
from protocols.round.parts import Grid
from protocols.round.weighing import everywhere, pack, whole_gram
from protocols.rules import CoordinateWiseRule, DistanceRule, Rule
from protocols.vectors import Vector, slices

if TYPE_CHECKING:
    from protocols.aggregation import Plan


@dataclass(frozen=True, slots=True)
class ReducedChunk:
    payload: Payload
    """The encoded result; may be a view of the values."""
    digest: bytes
    included: int
    """The mask of the members whose updates it is made of."""


class PartReduction:
    def __init__(
        self, part: Part, grid: Grid, members: Sequence[Member], codec: Codec, rule: Rule, *, keeps: bool = False
    ) -> None:
        """`members` as in the `Begin`; those with weight 0 send nothing.

        `keeps`: whether what chunks were reduced from stays here, for who checks it.
        """
        self.part = part
        self.grid = grid
        self.members = members
        self.codec = codec
        self._rule = rule
        self.keeps = keeps
        self.inputs: dict[int, dict[int, Payload]] = {}
        """Of each reduced chunk, where they are kept: member number → what it was made of."""
        self._rows: dict[int, dict[int, Payload]] = {chunk: {} for chunk in range(part.start, part.stop)}
        """Chunk → member number → what it has sent, checked, until the chunk is reduced."""
        self._delivered = {number: part.start for number, member in enumerate(members) if member.weight > 0}
        """Member number → the chunk it has to deliver next."""
        self._dropped: set[int] = set()
        self._gram = np.zeros((len(members) + 1, len(members) + 1))
        """What was observed so far; the origin comes last."""
        self._weights: Weights | None = None

    def open(self, number: int, contribution: Contribution) -> tuple[bytes, ...]:
        """Checks that `contribution` is what member `number` committed to; returns its digests of all chunks.

        Empty when it only reads the result: who has restarted since no longer has what it committed to.
        Raises Rejected: wrong_digest, wrong_shape.
        """
        member = self.members[number]
        if not contribution.chunks:
            self.drop(number)
            return ()
        if len(contribution.chunks) != self.grid.chunks:
            raise Rejected(Reason.WRONG_SHAPE, f"{len(contribution.chunks)} chunks, not {self.grid.chunks}")
        if commitment(contribution.chunks) != member.root:
            raise Rejected(Reason.WRONG_DIGEST, "the contribution is not what its sender committed to")
        return contribution.chunks

    def next_chunk(self, number: int) -> int | None:
        """Which chunk member `number` has to deliver next; None when it has nothing more to deliver."""
        chunk = self._delivered.get(number, self.part.stop)
        return None if number in self._dropped or chunk >= self.part.stop else chunk

    def check(self, chunk: int, payload: Payload, expected_digest: bytes) -> None:
        """Of a delivered chunk, before `add`. Raises Rejected: wrong_digest, wrong_shape, non_finite."""
        if digest(memoryview(payload)) != expected_digest:
            raise Rejected(Reason.WRONG_DIGEST, f"chunk {chunk} is not what its sender committed to")
        self.codec.check(payload, self.grid.size(chunk))

    def add(self, number: int, chunk: int, payload: Payload) -> None:
        """Takes the chunk that `next_chunk` named; ignored when its sender was dropped meanwhile."""
        if number in self._dropped or chunk != self._delivered[number]:
            return
        self._rows[chunk][number] = payload
        self._delivered[number] = chunk + 1

    def drop(self, number: int) -> None:
        """Counts on member `number` no longer."""
        self._dropped.add(number)

    def has_begun(self, number: int) -> bool:
        """Whether member `number` has delivered any chunk of the part."""
        return self._delivered.get(number, self.part.start) > self.part.start

    def missing(self, chunk: int) -> set[int]:
        """The members that are counted on and have not delivered `chunk`."""
        return {n for n, following in self._delivered.items() if following <= chunk and n not in self._dropped}

    def delivered(self, chunk: int) -> set[int]:
        return set(self._rows[chunk])

    def reduce(self, chunk: int, out: Vector) -> ReducedChunk:
        """Reduces `chunk` and lets its inputs go; `out` gets the values that the members will decode.

        Raises Rejected (unexpected) when nobody has delivered it.
        """
        rows = self._rows.pop(chunk)
        if not rows:
            raise Rejected(Reason.UNEXPECTED, f"nobody has delivered chunk {chunk}")
        weights = self._weights
        numbers = sorted(rows) if weights is None else weights.numbers
        if self.keeps:
            self.inputs[chunk] = {number: rows[number] for number in numbers}
        for piece, values in self._decoded(rows, numbers, len(out)):
            out[piece] = self._aggregate(values, numbers) if weights is None else weights.plan.apply(values)
        payload = self.codec.encode(out)
        self.codec.decode_into(out, payload, len(out))
        return ReducedChunk(payload, digest(memoryview(payload)), sum(1 << number for number in numbers))

    def _aggregate(self, values: NDArray[np.float32], numbers: Sequence[int]) -> Vector:
        assert isinstance(self._rule, CoordinateWiseRule)
        return self._rule.aggregate(values, [float(self.members[number].weight) for number in numbers])

    def _decoded(
        self, rows: Mapping[int, Payload], numbers: Sequence[int], count: int
    ) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """The rows of these members piece by piece, decoded when they are needed, while they stay in the cache."""
        pieces = slices(count)
        decoded = np.empty((len(numbers), pieces[0].stop), np.float32)
        for piece in pieces:
            values = decoded[:, : piece.stop - piece.start]
            for row, number in zip(values, numbers, strict=True):
                self.codec.decode_into(row, rows[number], count, piece.start)
            yield piece, values

    # -- rules that look at distances ---------------------------------------------------------------------------------

    @property
    def looks_at_distances(self) -> bool:
        return isinstance(self._rule, DistanceRule)

    def observe(self, chunk: int) -> None:
        """Adds what is to be seen in `chunk`, which all have delivered who are still counted on.

        Raises Rejected (unexpected) when nobody has.
        """
        assert isinstance(self._rule, DistanceRule)
        rows = self._rows[chunk]
        numbers = sorted(rows)
        if not rows:
            raise Rejected(Reason.UNEXPECTED, f"nobody has delivered chunk {chunk}")
        places = np.ix_([*numbers, len(self.members)], [*numbers, len(self.members)])
        for _, values in self._decoded(rows, numbers, self.grid.size(chunk)):
            self._gram[places] += self._rule.observe(values)

    def observed(self, term: int, number: int, attempt: int, begin: bytes) -> Observed:
        """Of all chunks, for the leader; `begin`: `begin_digest`.

        Raises Rejected (unexpected) when nobody has delivered them all.
        """
        whole = [n for n in self._delivered if self._has_delivered_all(n)]
        if not whole:
            raise Rejected(Reason.UNEXPECTED, "nobody has delivered the whole part")
        places = [*whole, len(self.members)]
        included = sum(1 << n for n in whole)
        gram = pack(self._gram[np.ix_(places, places)])
        return Observed(term=term, part=number, attempt=attempt, begin=begin, included=included, gram=gram)

    def weigh(self, observations: Sequence[Observed]) -> None:
        """From now on `reduce` makes of the chunks what follows from what all owners have observed.

        Raises Rejected: unexpected (somebody's chunks are missing here, or nobody's are everywhere), wrong_shape,
        non_finite.
        """
        assert isinstance(self._rule, DistanceRule)
        numbers = everywhere(observations)
        if not numbers or not all(self._has_delivered_all(number) for number in numbers):
            raise Rejected(Reason.UNEXPECTED, "the chunks of those who are to be reduced are not all here")
        if 0 < self._rule.byzantine < len(self._delivered) - len(numbers):
            raise Rejected(
                Reason.UNEXPECTED, f"only {len(numbers)} of {len(self._delivered)} members are to be reduced"
            )
        try:
            plan = self._rule.plan(whole_gram(observations, numbers))
        except (ValueError, ArithmeticError, np.linalg.LinAlgError) as error:
            raise Rejected(Reason.UNEXPECTED, f"no weights follow from what was observed: {error}") from error
        if not np.isfinite(plan.matrix).all():
            raise Rejected(Reason.NON_FINITE, "the weights that follow from what was observed are not finite")
        self._weights = Weights(tuple(numbers), plan)

    def _has_delivered_all(self, number: int) -> bool:
        return number not in self._dropped and self._delivered.get(number) == self.part.stop


@dataclass(frozen=True, slots=True)
class Weights:
    """Whose rows count, by number and in this order, and how."""

    numbers: tuple[int, ...]
    plan: "Plan"


class EncodedUpdate:
    """A member's own update, cut and encoded, and committed to."""

    def __init__(self, update: Vector, codec: Codec) -> None:
        """`update`: flat float32. Raises ValueError when an element is NaN or infinite."""
        grid = Grid(len(update))
        self._hold(grid, [codec.encode(update[grid.bounds(number)]) for number in range(grid.chunks)])

    @classmethod
    def of_results(cls, grid: Grid, chunks: Sequence[Payload], cell: bytes) -> "EncodedUpdate":
        """Of the aggregate of a cell, as it was reduced: what its members have voted for, to the bit.

        `cell`: wire bytes of the `Signed[Done]` that says so.
        """
        update = cls.__new__(cls)
        update._hold(grid, list(chunks), (cell,))
        return update

    def _hold(self, grid: Grid, chunks: list[Payload], cell: tuple[bytes, ...] = ()) -> None:
        self.grid, self.chunks, self.cell = grid, chunks, cell
        self.digests = tuple(digest(memoryview(chunk)) for chunk in chunks)

    @property
    def root(self) -> bytes:
        return commitment(self.digests)


def open_result_chunk(payload: Payload, out: Vector, codec: Codec) -> tuple[Payload, bytes]:
    """Decodes an encoded result chunk, on arrival, into `out`; what to keep of it (as small as can be), and its digest.

    Raises Rejected: wrong_shape, non_finite.
    """
    codec.check(payload, len(out))
    codec.decode_into(out, payload, len(out))
    return codec.kept(payload, out), digest(memoryview(payload))
