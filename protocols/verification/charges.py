"""What a validator shows when what it has recomputed is not what was sent: enough for anybody to recompute it too.

A sender has signed its chunks' digests for a round that it names by digest, and the round's `Begin` says how many
samples they stand for; so its state, data and work are known, and its update can be made again. An owner has signed
what it made of which members' chunks; so those chunks, which their senders have signed, can be reduced again.

Whoever recomputes it bans one of two: who did the work wrongly, or who said so of work that was right.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from protocols.codecs import Codec, Payload
from protocols.encoding import digest
from protocols.identity import PeerId
from protocols.message import Many, Message
from protocols.rejection import Reason, Rejected
from protocols.round.checks import check_begin
from protocols.round.messages import (
    MAX_OBSERVERS,
    Begin,
    ChunkNumber,
    Contribution,
    Observed,
    Part,
    Result,
    begin_digest,
    commitment,
    weighing_digest,
)
from protocols.round.parts import MAX_CHUNK, Grid
from protocols.round.weighing import everywhere, numbers_of, whole_gram
from protocols.rules import CoordinateWiseRule, DistanceRule, Matrix, Rule
from protocols.signed import ENVELOPE_BYTES, Signed, open_signed
from protocols.vectors import Vector

NOTICEABLE = 0.01
"""Of the share that a chunk would have of a whole vector of its length, were it even: what is below is taken for
nothing, and so is a difference of so little."""
GRAM_TOLERANCE = 1e-3
"""Of the squared distances of two points from where most rows lie: far more than what sums are rounded by, and far less
than what moves a rule. The origin may lie a thousand times farther away, and is no measure."""
_TINY = float(np.finfo(np.float32).tiny)

BeginWire = Annotated[bytes, Field(max_length=Begin.limit_bytes + ENVELOPE_BYTES)]


class SenderCharge(Message):
    """What this member has sent is not what its data make of the state."""

    kind: ClassVar[str] = "sender_charge"
    limit_bytes: ClassVar[int] = 2 * 1024 * 1024
    begin: BeginWire
    """Wire bytes of the `Signed[Begin]` …"""
    contribution: Annotated[bytes, Field(max_length=Contribution.limit_bytes + ENVELOPE_BYTES)]
    """… of the `Signed[Contribution]` of the one who is charged …"""
    chunk: ChunkNumber
    payload: Annotated[bytes, Field(max_length=4 * MAX_CHUNK)]
    """… and one of the chunks that it has sent."""


class OwnerCharge(Message):
    """What this owner has made of its part is not what the rule makes of it."""

    kind: ClassVar[str] = "owner_charge"
    limit_bytes: ClassVar[int] = 2 * 1024 * 1024
    begin: BeginWire
    result: Annotated[bytes, Field(max_length=Result.limit_bytes + ENVELOPE_BYTES)]
    """Wire bytes of its `Signed[Result]`."""
    observed: Annotated[Many[bytes], Field(max_length=MAX_OBSERVERS)]
    """Wire bytes of the `Signed[Observed]` of all parts, in their order, where the rule looks at distances."""
    chunk: ChunkNumber | None
    """The chunk that is not right; None: what the owner says to have observed is not."""
    payload: Annotated[bytes, Field(max_length=4 * MAX_CHUNK)]
    """That chunk of the result; of the senders' chunks, whoever charges has those to show."""


@dataclass(frozen=True, slots=True)
class SentChunk:
    """A chunk of an update, and what its sender has signed it for."""

    sender: PeerId
    epoch: int
    base: bytes
    weight: int
    chunk: int
    payload: Payload


@dataclass(frozen=True, slots=True)
class ReducedPart:
    """What an owner has made of a part, by its own word."""

    owner: PeerId
    epoch: int
    begin: Begin
    part: Part
    result: Result
    observations: tuple[Observed, ...]
    """Of all parts, where the rule looks at distances."""
    observer: PeerId | None
    """Who has observed this part: its owner, or one that owned it before and gave no result."""

    def numbers(self, chunk: int | None) -> list[int]:
        """The members from whose chunks it was made; None: those whose distances count."""
        if chunk is None:
            return everywhere(self.observations)
        return numbers_of(self.result.included[chunk - self.part.start])

    @property
    def observed(self) -> Observed:
        """What was observed of this part."""
        return self.observations[self.result.part]


def open_begin(wire: bytes, run: str, chunks: int) -> Signed[Begin]:
    """Raises Rejected."""
    begin = open_signed(wire, Begin, run=run)
    check_begin(begin.body, chunks)
    return begin


def open_sent(begin: Signed[Begin], wire: bytes, chunk: int, payload: Payload, codec: Codec, grid: Grid) -> SentChunk:
    """A chunk that a member of that round has sent, by its own `Signed[Contribution]` (`wire`). Raises Rejected."""
    contribution = open_signed(wire, Contribution, run=begin.run)
    sender, body = contribution.sender, contribution.body
    member = next((member for member in begin.body.members if member.peer == sender), None)
    if member is None or (contribution.epoch, body.begin) != (begin.epoch, begin_digest(begin.body)):
        raise Rejected(Reason.UNEXPECTED, f"the contribution of {sender} is to another round")
    if len(body.chunks) != grid.chunks or commitment(body.chunks) != member.root or chunk >= grid.chunks:
        raise Rejected(Reason.WRONG_DIGEST, f"the contribution is not what {sender} committed to")
    if digest(memoryview(payload)) != body.chunks[chunk]:
        raise Rejected(Reason.WRONG_DIGEST, f"chunk {chunk} is not what {sender} committed to")
    codec.check(payload, grid.size(chunk))
    return SentChunk(sender, begin.epoch, begin.body.base, member.weight, chunk, payload)


def open_reduced(begin: Signed[Begin], wire: bytes, observed: Sequence[bytes], *, weighs: bool) -> ReducedPart:
    """What an owner says in its `Signed[Result]` (`wire`). Raises Rejected."""
    result = open_signed(wire, Result, run=begin.run)
    body = result.body
    if (result.epoch, body.begin) != (begin.epoch, begin_digest(begin.body)) or body.part >= len(begin.body.parts):
        raise Rejected(Reason.UNEXPECTED, f"the result of {result.sender} is of another round")
    part = begin.body.parts[body.part]
    if len(body.chunks) != part.stop - part.start or max(body.included) >> len(begin.body.members):
        raise Rejected(Reason.WRONG_SHAPE, f"the result of {result.sender} is not of its part")
    opened = [open_signed(one, Observed, run=begin.run) for one in observed]
    observations = tuple(one.body for one in opened)
    if not weighs:
        return ReducedPart(result.sender, begin.epoch, begin.body, part, body, (), None)
    if body.weighed != weighing_digest(observations) or len(observations) != len(begin.body.parts):
        raise Rejected(Reason.UNEXPECTED, f"the result of {result.sender} follows from other observations")
    for number, one in enumerate(opened):
        if (one.epoch, one.body.begin, one.body.part) != (begin.epoch, body.begin, number):
            raise Rejected(Reason.UNEXPECTED, f"what {one.sender} has observed is of another round or part")
    return ReducedPart(result.sender, begin.epoch, begin.body, part, body, observations, opened[body.part].sender)


def is_as_recomputed(sent: SentChunk, update: Vector, codec: Codec, grid: Grid, tolerance: float) -> bool:
    """Whether the chunk is that of `update` (the whole of it), as near as floating-point arithmetic gives it."""
    computed = update[grid.bounds(sent.chunk)]
    even = _length(update) * sqrt(len(computed) / len(update))
    return _near(codec.decode(sent.payload, len(computed)), _through(codec, computed), tolerance, NOTICEABLE * even)


def is_reduced_right(
    reduced: ReducedPart,
    chunk: int,
    result: Payload,
    rows: Mapping[int, Payload],
    rule: Rule,
    codec: Codec,
    grid: Grid,
    tolerance: float,
) -> bool:
    """Whether `result`, which the owner has signed for `chunk`, is what the rule makes of `rows` (by member number)."""
    numbers = reduced.numbers(chunk)
    values = np.stack([codec.decode(rows[number], grid.size(chunk)) for number in numbers])
    if isinstance(rule, CoordinateWiseRule):
        computed = rule.aggregate(values, [float(reduced.begin.members[number].weight) for number in numbers])
    else:
        if numbers != everywhere(reduced.observations):
            return False
        try:
            computed = rule.plan(whole_gram(reduced.observations, numbers)).apply(values)
        except (ValueError, ArithmeticError, np.linalg.LinAlgError):
            return False
    return _near(codec.decode(result, grid.size(chunk)), _through(codec, computed), tolerance, 0.0)


class Observation:
    """Recomputes what was observed of a part, chunk by chunk: the distances between those that count."""

    def __init__(self, reduced: ReducedPart, rule: DistanceRule, codec: Codec, grid: Grid) -> None:
        self._reduced, self._rule, self._codec, self._grid = reduced, rule, codec, grid
        self._numbers = reduced.numbers(None)
        self._gram = np.zeros((len(self._numbers) + 1, len(self._numbers) + 1))

    def add(self, chunk: int, rows: Mapping[int, Payload]) -> None:
        size = self._grid.size(chunk)
        self._gram += self._rule.observe(np.stack([self._codec.decode(rows[number], size) for number in self._numbers]))

    def is_right(self) -> bool:
        """Once all chunks of the part have been added."""
        said = _squared_distances(whole_gram([self._reduced.observed], self._numbers))
        computed = _squared_distances(self._gram)
        to_half = np.sort(computed[:, :-1], axis=1)[:, len(self._numbers) // 2]
        middle = int(to_half.argmin())
        far = np.maximum(computed[middle] + to_half[middle], 0)
        return bool((np.abs(said - computed) <= GRAM_TOLERANCE * (far[:, None] + far) + _TINY).all())


@np.errstate(all="ignore")
def _squared_distances(gram: Matrix) -> Matrix:
    """Between the points: they do not depend on the reference, which two may choose differently."""
    squares = gram.diagonal()
    distances: Matrix = squares[:, None] + squares - 2 * gram  # of what somebody says they may be negative
    return distances


def _through(codec: Codec, values: Vector) -> Vector:
    """As others get them."""
    return codec.decode(codec.encode(values), len(values))


def _near(sent: Vector, computed: Vector, tolerance: float, noticeable: float) -> bool:
    allowed = tolerance * max(_length(computed), noticeable, _TINY)
    return _length(sent - computed) <= allowed


def _length(values: Vector) -> float:
    return float(np.linalg.norm(values.astype(np.float64)))
