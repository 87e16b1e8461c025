"""What the owner of a part does with the chunks of its senders; chunk by chunk, without I/O.

A chunk is reduced when every sender that is still counted on has delivered it. A sender that is dropped (it broke off,
is too slow, or sent something wrong) counts for the chunks it has delivered, and not for the rest: each reduced chunk
says whose updates it is made of. Methods that do arithmetic on whole chunks are meant for a worker thread; for one
chunk they may run beside the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from protocols.codecs import Codec, Payload
from protocols.encoding import digest
from protocols.rejection import Reason, Rejected
from protocols.round.messages import Contribution, Member, Part, commitment
from protocols.round.parts import Grid
from protocols.rules import CoordinateWiseRule
from protocols.vectors import Vector, slices


@dataclass(frozen=True, slots=True)
class ReducedChunk:
    payload: Payload
    """The encoded result; may be a view of the values."""
    digest: bytes
    included: int
    """The mask of the members whose updates it is made of."""


class PartReduction:
    def __init__(
        self, part: Part, grid: Grid, members: Sequence[Member], codec: Codec, rule: CoordinateWiseRule
    ) -> None:
        """`members` as in the `Begin`; those with weight 0 send nothing."""
        self.part = part
        self.grid = grid
        self.members = members
        self._codec, self._rule = codec, rule
        self._rows: dict[int, dict[int, Payload]] = {chunk: {} for chunk in range(part.start, part.stop)}
        """Chunk → member number → what it has sent, checked, until the chunk is reduced."""
        self._delivered = {number: part.start for number, member in enumerate(members) if member.weight > 0}
        """Member number → the chunk it has to deliver next."""
        self._dropped: set[int] = set()

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
        self._codec.check(payload, self.grid.size(chunk))

    def add(self, number: int, chunk: int, payload: Payload) -> None:
        """Takes the chunk that `next_chunk` named; ignored when its sender was dropped meanwhile."""
        if number in self._dropped or chunk != self._delivered[number]:
            return
        self._rows[chunk][number] = payload
        self._delivered[number] = chunk + 1

    def drop(self, number: int) -> None:
        """Counts on member `number` no longer."""
        self._dropped.add(number)

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
        numbers = sorted(rows)
        weights = [float(self.members[number].weight) for number in numbers]
        pieces = slices(len(out))
        decoded = np.empty((len(numbers), pieces[0].stop), np.float32)
        for piece in pieces:  # decoded when it is needed, while it stays in the cache
            values = decoded[:, : piece.stop - piece.start]
            for row, number in zip(values, numbers, strict=True):
                self._codec.decode_into(row, rows[number], len(out), piece.start)
            out[piece] = self._rule.aggregate(values, weights)
        payload = self._codec.encode(out)
        self._codec.decode_into(out, payload, len(out))
        return ReducedChunk(payload, digest(memoryview(payload)), sum(1 << number for number in numbers))


class EncodedUpdate:
    """A member's own update, cut and encoded, and committed to."""

    def __init__(self, update: Vector, codec: Codec) -> None:
        """`update`: flat float32. Raises ValueError when an element is NaN or infinite."""
        self.grid = Grid(len(update))
        self.chunks: list[Payload] = [
            codec.encode(update[self.grid.bounds(number)]) for number in range(self.grid.chunks)
        ]
        self.digests = tuple(digest(memoryview(chunk)) for chunk in self.chunks)

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
