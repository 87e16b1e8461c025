"""`Signed[T]`: a body bound by signature to its run, sender, kind, epoch and sequence number.

The signature covers a domain tag and the canonical encoding of all six, so nothing can be replayed in another run,
epoch or role. Within one (sender, kind), `ReplayGuard` accepts every sequence number once; numbers start at the wall
clock in nanoseconds, so that they go on rising when a daemon restarts.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Generic, TypeVar

from protocols.encoding import EncodingError, decode_scalars, digest, encode
from protocols.identity import SIGNATURE_BYTES, Identity, IdentityError, PeerId, parse_peer_id, verify
from protocols.message import Message
from protocols.rejection import Reason, Rejected

BodyT = TypeVar("BodyT", bound=Message)

_DOMAIN = b"peer/1/signed\x00"
_SECRET_DOMAIN = b"peer/1/secret\x00"
_ENVELOPE_TYPES = [str, str, str, int, int, bytes, bytes]
LEAP = 2_000_000
"""Of sequence numbers, when their signer has forgotten what it has said: two milliseconds of them at a start."""
SHORT_BYTES = 2048
OPENED_KEPT = 1024
"""Short statements that are remembered as opened, as members say the same again and again: some 10 MB."""
ENVELOPES_KEPT = 8
"""Of those taken apart last, for who looks at what a statement is opens it next. Of two megabytes each, at most."""
ENVELOPE_BYTES = 512
"""What the envelope may add to the body on the wire, at most."""


@dataclass(frozen=True, slots=True)
class Signed(Generic[BodyT]):
    """A verified statement of `sender`; `wire` is the encoding that anybody else can verify again."""

    run: str
    sender: PeerId
    epoch: int
    sequence: int
    body: BodyT
    wire: bytes = field(repr=False)

    @property
    def kind(self) -> str:
        return self.body.kind


class Signer:
    """Signs the statements of one identity in one run, with rising sequence numbers."""

    def __init__(self, identity: Identity, run: str, first_sequence: int) -> None:
        """`first_sequence`: the wall clock in nanoseconds."""
        self.identity = identity
        self.run = run
        self._first = self._sequence = first_sequence

    @property
    def peer_id(self) -> PeerId:
        return self.identity.peer_id

    def secret(self, purpose: str, *context: str | int | bytes) -> bytes:
        """32 bytes that nobody else can know, the same for the same context as long as this process lives."""
        what = encode([self.run, self.peer_id, self._first, purpose, *context])
        return digest(_SECRET_DOMAIN, self.identity.sign(_SECRET_DOMAIN + what))

    def forget(self) -> None:
        """What was said so far may be contradicted from now on, as after a restart (`protocols.verification`)."""
        self._sequence += LEAP
        self._first = self._sequence

    def sign(self, body: BodyT, epoch: int) -> Signed[BodyT]:
        self._sequence += 1
        statement = [self.run, self.peer_id, body.kind, epoch, self._sequence, body.to_bytes()]
        signature = self.identity.sign(_DOMAIN + encode(statement))
        return Signed(self.run, self.peer_id, epoch, self._sequence, body, encode([*statement, signature]))


def open_signed(wire: bytes, body_type: type[BodyT], *, run: str, sender: PeerId | None = None) -> Signed[BodyT]:
    """The statement in `wire`, verified; `sender`, when given, is who must have signed it.

    Raises Rejected: oversized, malformed, wrong_run, wrong_kind, wrong_sender, bad_signature.
    """
    if len(wire) > body_type.limit_bytes + ENVELOPE_BYTES:
        raise Rejected(Reason.OVERSIZED, f"{body_type.kind}: {len(wire)} bytes")
    if (known := _opened.get((wire, body_type))) is not None and known.run == run and sender in (None, known.sender):
        return known
    their_run, their_sender, kind, epoch, sequence, body, signature = _envelope(wire)
    if their_run != run:
        raise Rejected(Reason.WRONG_RUN, f"{body_type.kind}: signed for another run")
    if kind != body_type.kind:
        raise Rejected(Reason.WRONG_KIND, f"expected {body_type.kind}, got {kind[:32]!r}")
    if sender is not None and their_sender != sender:
        raise Rejected(Reason.WRONG_SENDER, f"{kind}: not signed by {sender}")
    _check_signature(their_run, their_sender, kind, epoch, sequence, body, signature)
    statement = Signed(run, their_sender, epoch, sequence, body_type.from_bytes(body), wire)
    if len(wire) <= SHORT_BYTES:
        _opened[wire, body_type] = statement
        if len(_opened) > OPENED_KEPT:
            _opened.popitem(last=False)
    return statement


def signer_and_kind(wire: bytes) -> tuple[PeerId, str]:
    """Who has signed the statement in `wire`, whatever it says, and its kind. Raises Rejected."""
    envelope = _envelope(wire)
    _check_signature(*envelope)
    return envelope[1], envelope[2]


def signed_run_and_kind(wire: bytes, limit_bytes: int) -> tuple[str, str]:
    """The run and kind that an envelope claims, unverified, to choose how to open it. Raises Rejected."""
    if len(wire) > limit_bytes:
        raise Rejected(Reason.OVERSIZED, f"{len(wire)} bytes")
    envelope = _envelope(wire)
    return envelope[0], envelope[2]


_opened: OrderedDict[tuple[bytes, type[Message]], Signed[Any]] = OrderedDict()


def _check_signature(
    run: str, sender: PeerId, kind: str, epoch: int, sequence: int, body: bytes, signature: bytes
) -> None:
    """Raises Rejected (bad_signature)."""
    if not verify(sender, _DOMAIN + encode([run, sender, kind, epoch, sequence, body]), signature):
        raise Rejected(Reason.BAD_SIGNATURE, f"{kind}: not signed by {sender}")


@lru_cache(maxsize=ENVELOPES_KEPT)
def _envelope(wire: bytes) -> tuple[str, PeerId, str, int, int, bytes, bytes]:
    try:
        items = decode_scalars(wire, len(_ENVELOPE_TYPES))
    except EncodingError as error:
        raise Rejected(Reason.MALFORMED, str(error)) from error
    if [type(item) for item in items] != _ENVELOPE_TYPES:
        raise Rejected(Reason.MALFORMED, "not a signed envelope")
    run, sender, kind, epoch, sequence, body, signature = items
    if not (0 <= epoch < 2**53 and 0 <= sequence < 2**63 and len(signature) == SIGNATURE_BYTES):
        raise Rejected(Reason.MALFORMED, "epoch, sequence or signature out of range")
    if encode(items) != wire:
        raise Rejected(Reason.MALFORMED, "the envelope is not in its one encoding")
    try:
        return run, parse_peer_id(sender), kind, epoch, sequence, body, signature
    except IdentityError as error:
        raise Rejected(Reason.MALFORMED, str(error)) from error


class ReplayGuard:
    """Accepts each sequence number of a (sender, kind) once, in any order within a window (as DTLS does).

    Bounded: with MAX_SENDERS × WINDOW numbers it takes about 50 MB, whatever comes.
    """

    WINDOW = 128
    MAX_SENDERS = 4096

    def __init__(self) -> None:
        self._seen: dict[tuple[PeerId, str], _Window] = {}

    def admit(self, statement: Signed[Any]) -> None:
        """Raises Rejected (replayed, or stale when it is older than the window)."""
        key = (statement.sender, statement.kind)
        window = self._seen.pop(key, None) or _Window()
        self._seen[key] = window  # most recently used last
        while len(self._seen) > self.MAX_SENDERS:
            self._seen.pop(next(iter(self._seen)))
        if statement.sequence in window.numbers:
            raise Rejected(Reason.REPLAYED, f"{statement.kind} number {statement.sequence} was seen before")
        if statement.sequence <= window.floor:
            raise Rejected(Reason.STALE, f"{statement.kind} number {statement.sequence} is too old")
        window.numbers.add(statement.sequence)
        if len(window.numbers) > self.WINDOW:
            window.floor = min(window.numbers)
            window.numbers.discard(window.floor)


@dataclass(slots=True)
class _Window:
    floor: int = -1
    numbers: set[int] = field(default_factory=set)
