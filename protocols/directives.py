"""What the organiser changes while a run lives: bans, pause and resume, and how the shared state is trained.

A directive is signed by the organiser that the manifest names, and numbered 1, 2, 3 …; the envelope's epoch is the
first at which it holds:

    Ban, Resume  at once, wherever they are known: nothing of the state depends on them
    Pause        before the round of its epoch, or of the next one where it comes late
    Set          for the step that follows its epoch, and all later ones

Members must take every step alike, so all that they derive is a function of the set of directives that they know, and
not of the order or time in which they came:

- A directive holds when all with smaller numbers are known.
- **Two that say different things under one number** are the organiser's contradiction (or its two machines'). The one
  with the smaller digest holds, whenever it is seen. Were it the first seen, members would part for good; so they part
  until both have got about, and those who stepped otherwise take the majority's state. Both are kept and shown. Of more
  than two the two smallest are kept.
- Changes of one field are ordered by the epoch from which they hold, then by number.

So two members that know the same directives come to the same; who learns of one too late has another state than those
who knew it, and takes theirs (`protocols.heads`).
"""

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from protocols.encoding import digest, encode
from protocols.identity import PeerId
from protocols.manifest import DataParallel, Fraction, LocalSgd, Manifest, Positive, Rate, Sgd, Training
from protocols.message import Digest, Item, Many, Message, Peer, ShortText
from protocols.rejection import Reason, Rejected
from protocols.signed import ENVELOPE_BYTES, Signed, open_signed

MAX_DIRECTIVES = 1024
"""Of a run; what is kept of them takes three megabytes at most."""
KEPT_OF_A_NUMBER = 2
MAX_STATEMENTS = 64
"""In one message."""
MAX_SHARED_BYTES = 48 * 1024
"""Of the statements in one message; at least one fits."""


class Ban(Item):
    """This peer takes no part any more."""

    action: Literal["ban"] = "ban"
    peer: Peer
    why: ShortText


class Pause(Item):
    """No rounds until a later directive resumes them."""

    action: Literal["pause"] = "pause"


class Resume(Item):
    action: Literal["resume"] = "resume"


class Set(Item):
    """Fields of the manifest's training, by their names there; the optimizer's are those of the outer optimizer.

    None leaves a field as it is. What decides how a state looks (the optimizer's slots), or what a member trains on,
    cannot change while a run lives.
    """

    action: Literal["set"] = "set"
    learning_rate: Rate | None = None
    final_learning_rate: Annotated[float, Field(ge=0, le=1000)] | None = None
    weight_decay: Fraction | None = None
    momentum: Annotated[float, Field(gt=0, lt=1)] | None = None
    target_batch: Positive | None = None

    @property
    def changes(self) -> dict[str, float | int]:
        return self.model_dump(exclude={"action"}, exclude_none=True)

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if not self.changes:
            raise ValueError("changes nothing")
        return self


SETTABLE = tuple(name for name in Set.model_fields if name != "action")
Order = Annotated[Ban | Pause | Resume | Set, Field(discriminator="action")]


class Directive(Message):
    """One order of the organiser; the envelope's epoch is the first at which it holds."""

    kind: ClassVar[str] = "directive"
    limit_bytes: ClassVar[int] = 1024

    number: Annotated[int, Field(ge=1, le=MAX_DIRECTIVES)]
    order: Order


MAX_WIRE_BYTES = Directive.limit_bytes + ENVELOPE_BYTES
Wire = Annotated[bytes, Field(max_length=MAX_WIRE_BYTES)]


class Sharing(Message):
    """Between any two peers, as a question and as its answer; unsigned, as its statements are signed themselves."""

    kind: ClassVar[str] = "sharing"
    limit_bytes: ClassVar[int] = 128 * 1024

    known: Annotated[Many[Digest], Field(max_length=KEPT_OF_A_NUMBER * MAX_DIRECTIVES)]
    """Digests of the statements that the sender has; empty in an answer."""
    statements: Annotated[Many[Wire], Field(max_length=MAX_STATEMENTS)]
    """Signed `Directive`s that the other may lack."""


def check_order(manifest: Manifest, order: Ban | Pause | Resume | Set) -> None:
    """Whether this run can carry it out. Raises ValueError, with what is wrong in one sentence."""
    if isinstance(order, Ban) and order.peer == manifest.organiser:
        raise ValueError("the organiser cannot be banned: its word is what bans")
    if not isinstance(order, Set):
        return
    outer = manifest.training.outer
    if order.momentum is not None and not (isinstance(outer, Sgd) and outer.momentum):
        raise ValueError("momentum: the outer optimizer has none, and a state without it cannot get it")
    if order.target_batch is None:
        return
    if not isinstance(manifest.training, DataParallel):
        raise ValueError(f"target_batch: a run of {manifest.training.mode} has none")
    most = manifest.training.target_batch
    if order.target_batch > most:  # members refuse more samples of one peer than the manifest lets it have
        raise ValueError(f"target_batch: at most the manifest's {most}, to which members hold each other")


class DirectiveLog:
    """The directives of one run, as far as they are known here."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._kept: dict[int, tuple[Signed[Directive], ...]] = {}
        """Number → what was signed under it, the one that holds first."""
        self._wires: dict[bytes, bytes] = {}
        """Digest → the statement of that wire form, of all that are kept."""
        self.digest: bytes | None = None
        """Of all that is kept; None when nothing is. Equal digests: the same directives are known."""
        self.holding: tuple[Signed[Directive], ...] = ()
        """Those that hold, numbered 1, 2, 3 …; what lies beyond a number that is missing waits for it."""

    def take(self, wire: bytes) -> bool:
        """Takes a directive in; whether anything has changed.

        Raises Rejected: what `open_signed` raises for what is not this run's organiser's, and malformed for what the
        run cannot carry out.
        """
        if digest(wire) in self._wires:
            return False
        organiser = self._manifest.organiser
        if organiser is None:
            raise Rejected(Reason.WRONG_SENDER, "this run has no organiser, so there are no directives")
        statement = open_signed(wire, Directive, run=self._manifest.run_id, sender=organiser)
        try:
            check_order(self._manifest, statement.body.order)
        except ValueError as error:
            raise Rejected(Reason.MALFORMED, f"directive {statement.body.number}: {error}") from error
        number = statement.body.number
        before = self._kept.get(number, ())
        after = _smallest([*before, statement])
        if after == before:
            return False
        self._kept[number] = after
        for old in before:
            del self._wires[digest(old.wire)]
        self._wires |= {digest(kept.wire): kept.wire for kept in after}
        self.digest = digest(encode(sorted(self._wires)))
        self.holding = self._without_gaps()
        return True

    def __len__(self) -> int:
        """How many statements are kept."""
        return len(self._wires)

    @property
    def next_number(self) -> int:
        """Under which the organiser signs its next directive, as far as is known here."""
        return max(self._kept, default=0) + 1

    @property
    def known(self) -> tuple[bytes, ...]:
        """The digests of all statements that are kept."""
        return tuple(self._wires)

    @property
    def all(self) -> tuple[Signed[Directive], ...]:
        """All statements that are kept, by number; of two with one number first the one that holds."""
        return tuple(statement for number in sorted(self._kept) for statement in self._kept[number])

    @property
    def wires(self) -> tuple[bytes, ...]:
        """The wire forms of all that are kept, by number."""
        return tuple(statement.wire for statement in self.all)

    @property
    def contradictions(self) -> tuple[tuple[Signed[Directive], Signed[Directive]], ...]:
        """What the organiser has signed twice under one number: the directive that holds, and the other."""
        return tuple((kept[0], kept[1]) for _, kept in sorted(self._kept.items()) if len(kept) > 1)

    def lacking(self, known: AbstractSet[bytes], newest_first: bool = False) -> tuple[bytes, ...]:
        """What somebody who knows the statements of these digests lacks, by number; as much as a message may hold."""
        chosen: list[bytes] = []
        size = 0
        for wire in reversed(self.wires) if newest_first else self.wires:
            if digest(wire) in known:
                continue
            size += len(wire)
            if size > MAX_SHARED_BYTES or len(chosen) == MAX_STATEMENTS:
                break
            chosen.append(wire)
        return tuple(chosen)

    @property
    def bans(self) -> dict[PeerId, str]:
        return bans(self.holding)

    def paused(self, epoch: int) -> bool:
        return paused(self.holding, epoch)

    def training(self, epoch: int) -> Training:
        return training_at(self._manifest, self.holding, epoch)

    def _without_gaps(self) -> tuple[Signed[Directive], ...]:
        holding: list[Signed[Directive]] = []
        while kept := self._kept.get(len(holding) + 1):
            holding.append(kept[0])
        return tuple(holding)


def bans(directives: Iterable[Signed[Directive]]) -> dict[PeerId, str]:
    """Who is banned, and why by the first word on it."""
    orders = [directive.body.order for directive in directives]
    return {order.peer: order.why for order in reversed(orders) if isinstance(order, Ban)}


def paused(directives: Iterable[Signed[Directive]], epoch: int) -> bool:
    """Whether no round of `epoch` is held; `directives` in the order of their numbers."""
    result = False
    for directive in directives:
        match directive.body.order:
            case Pause() if directive.epoch <= epoch:
                result = True
            case Resume():
                result = False
    return result


def training_at(manifest: Manifest, directives: Iterable[Signed[Directive]], epoch: int) -> Training:
    """The training of which the step after `epoch` is part."""
    ordered = sorted(directives, key=lambda directive: (directive.epoch, directive.body.number))
    changes: dict[str, float | int] = {}
    for directive in ordered:
        if isinstance(directive.body.order, Set) and directive.epoch <= epoch:
            changes |= directive.body.order.changes
    return _changed(manifest.training, changes) if changes else manifest.training


def _changed(training: Training, changes: Mapping[str, float | int]) -> Training:
    of_outer = {name: value for name, value in changes.items() if name in type(training.outer).model_fields}
    of_training: dict[str, Any] = {name: value for name, value in changes.items() if name not in of_outer}
    outer = "outer" if isinstance(training, LocalSgd) else "optimizer"
    return training.model_copy(update=of_training | {outer: training.outer.model_copy(update=of_outer)})


def _smallest(statements: list[Signed[Directive]]) -> tuple[Signed[Directive], ...]:
    """Of each thing that is said one statement, of these the two with the smallest digests, the smallest first."""
    by_meaning: dict[bytes, Signed[Directive]] = {}
    for statement in statements:
        meaning = digest(encode([statement.epoch, statement.body.to_bytes()]))
        known = by_meaning.get(meaning)
        if known is None or statement.wire < known.wire:
            by_meaning[meaning] = statement
    return tuple(by_meaning[meaning] for meaning in sorted(by_meaning)[:KEPT_OF_A_NUMBER])
