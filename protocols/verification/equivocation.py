"""Two statements of one signer that contradict each other: proof that anybody checks alone, and for ever.

A peer that restarts in the middle of a round, or takes the swarm's state anew, may say something else than before: it
has forgotten. Its sequence numbers leap then (`Signer.forget`), so those that are close together are of one memory.
A liar that leaps ahead as if it had restarted is not proved guilty by this; its word does not get it far, either, for
what a round decides needs a majority's votes.
"""

from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import Field

from protocols.encoding import digest, encode
from protocols.identity import PeerId
from protocols.message import Message
from protocols.rejection import Reason, Rejected
from protocols.round.messages import Begin, Done, Prepared, Ready, Result
from protocols.signed import LEAP, Signed, open_signed, signed_run_and_kind

ONE_MEMORY = LEAP // 2
"""Nobody makes so many statements in a round."""
MAX_STATEMENT_BYTES = 1024 * 1024
BINDING: dict[str, type[Message]] = {body.kind: body for body in (Begin, Ready, Prepared, Result, Done)}
"""The statements that a peer makes once in a term (of a part: once in an attempt)."""


class Equivocation(Message):
    """Two statements of one signer, of one kind, epoch and term, of which at most one can be true."""

    kind: ClassVar[str] = "equivocation"
    limit_bytes: ClassVar[int] = 2 * MAX_STATEMENT_BYTES
    first: Annotated[bytes, Field(max_length=MAX_STATEMENT_BYTES)]
    second: Annotated[bytes, Field(max_length=MAX_STATEMENT_BYTES)]


class Testimony(Message):
    """A statement of a third peer that its receiver may not have heard, and may contradict what it has."""

    kind: ClassVar[str] = "testimony"
    limit_bytes: ClassVar[int] = MAX_STATEMENT_BYTES + 1024
    statement: Annotated[bytes, Field(max_length=MAX_STATEMENT_BYTES)]


Place = tuple[Any, ...]


def place(statement: Signed[Any]) -> Place | None:
    """What a statement of that kind is about: of one signer there can be one there. None: it binds nobody."""
    body = statement.body
    if statement.kind not in BINDING:
        return None
    where = (statement.sender, statement.kind, statement.epoch, body.term)
    match body:
        case Result(begin=begin, part=part, attempt=attempt):
            return (*where, begin, part, attempt)
    return (*where, body.base)


def contradict(first: Signed[Any], second: Signed[Any]) -> bool:
    """Whether one memory has signed two different things where there can be one."""
    where = place(first)
    same = where is not None and where == place(second)
    return same and abs(first.sequence - second.sequence) < ONE_MEMORY and _said(first) != _said(second)


def _said(statement: Signed[Any]) -> bytes:
    """A digest of what must not change when a statement is made again: a leader asks for `Ready` as often as it likes,
    and a measured speed changes."""
    match statement.body:
        case Ready(weight=weight, root=root):
            return digest(encode([weight, root]))
        case body:
            return digest(body.to_bytes())


def proved_guilty(evidence: Equivocation, run: str) -> PeerId:
    """The signer of both. Raises Rejected, also (unexpected) when the two do not contradict each other."""
    first, second = open_binding(evidence.first, run), open_binding(evidence.second, run)
    if not contradict(first, second):
        raise Rejected(Reason.UNEXPECTED, "equivocation: the two statements do not contradict each other")
    return first.sender


def open_binding(wire: bytes, run: str) -> Signed[Any]:
    """A statement that its signer is bound to. Raises Rejected."""
    _, kind = signed_run_and_kind(wire, MAX_STATEMENT_BYTES)
    if kind not in BINDING:
        raise Rejected(Reason.WRONG_KIND, f"equivocation: a statement of kind {kind[:32]!r} binds nobody")
    return open_signed(wire, BINDING[kind], run=run)


@dataclass(frozen=True, slots=True)
class _Heard:
    epoch: int
    sequence: int
    said: bytes
    wire: bytes


class Witness:
    """Remembers what was signed in the last epochs, and notices what contradicts it.

    Bounded in bytes, and in statements of one signer: whoever floods it only makes it forget.
    """

    def __init__(self, epochs: int = 4, limit_bytes: int = 16 * 1024 * 1024, of_one: int = 64) -> None:
        self._epochs, self._limit_bytes, self._of_one = epochs, limit_bytes, of_one
        self._heard: OrderedDict[Place, _Heard] = OrderedDict()
        self._counts: Counter[PeerId] = Counter()
        self._bytes = 0

    def hear(self, statement: Signed[Any]) -> Equivocation | None:
        """The proof, when its signer has said something else before."""
        where = place(statement)
        if where is None:
            return None
        before = self._heard.get(where)
        if before is None:
            self._remember(where, statement)
            return None
        if before.wire == statement.wire:  # most often: many hand it on
            return None
        if abs(before.sequence - statement.sequence) >= ONE_MEMORY or before.said == _said(statement):
            return None
        return Equivocation(first=before.wire, second=statement.wire)

    def _remember(self, where: Place, statement: Signed[Any]) -> None:
        if self._counts[statement.sender] >= self._of_one:
            return
        heard = _Heard(statement.epoch, statement.sequence, _said(statement), statement.wire)
        self._heard[where] = heard
        self._counts[statement.sender] += 1
        self._bytes += len(heard.wire)
        while self._bytes > self._limit_bytes or next(iter(self._heard.values())).epoch + self._epochs < heard.epoch:
            oldest, gone = self._heard.popitem(last=False)
            self._bytes -= len(gone.wire)
            self._counts[oldest[0]] -= 1
            self._counts += Counter()  # forgets the zeros
