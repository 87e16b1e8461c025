"""Two statements of one signer that contradict each other: proof that anybody checks alone, and for ever.

A peer that restarts in the middle of a round, or takes the swarm's state anew, may say something else than before: it
has forgotten. Its sequence numbers leap then (`Signer.forget`), so those that are close together are of one memory.
A liar that leaps ahead as if it had restarted is not proved guilty by this; its word does not get it far, either, for
what a round decides needs a majority's votes.
"""

from collections import OrderedDict
from typing import Annotated, Any, ClassVar

from pydantic import Field

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


def _said(statement: Signed[Any]) -> Any:
    """What must not change when a statement is made again: a leader asks for `Ready` as often as it likes, and a
    measured speed changes."""
    match statement.body:
        case Ready(weight=weight, root=root):
            return weight, root
        case body:
            return body


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


class Witness:
    """Remembers what was signed in the last epochs, and notices what contradicts it."""

    def __init__(self, epochs: int = 4, at_most: int = 8192) -> None:
        self._epochs, self._at_most = epochs, at_most
        self._heard: OrderedDict[Place, Signed[Any]] = OrderedDict()

    def hear(self, statement: Signed[Any]) -> Equivocation | None:
        """The proof, when its signer has said something else before."""
        where = place(statement)
        if where is None:
            return None
        before = self._heard.setdefault(where, statement)
        while (
            len(self._heard) > self._at_most or next(iter(self._heard.values())).epoch + self._epochs < statement.epoch
        ):
            self._heard.popitem(last=False)
        if not contradict(before, statement):
            return None
        return Equivocation(first=before.wire, second=statement.wire)

    @property
    def _oldest(self) -> int:
        return next(iter(self._heard.values())).epoch
