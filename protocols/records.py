"""The records of a run in the DHT: what they hold, under which key they lie, and the one check that all nodes make.

A record is a `Signed` statement of its owner, stored under the key of its run and kind with the owner's PeerID as
subkey. When it expires is part of what its owner signed, so that nobody can keep an old record alive by storing it
again. Small and short-lived: what a peer asks its members for (the manifest, snapshots) is no record.
"""

import hashlib
from typing import Annotated, ClassVar

from pydantic import Field, StringConstraints

from protocols.admission import Token
from protocols.directives import MAX_STATEMENTS, Wire
from protocols.identity import PeerId
from protocols.message import Count, Digest, Item, Many, Message, ShortText
from protocols.rejection import Reason, Rejected
from protocols.roles import Role
from protocols.signed import ENVELOPE_BYTES, Signed, open_signed, signed_run_and_kind

CLOCK_SKEW_SECONDS = 30.0
"""By how much the clocks of two honest peers may differ."""

Multiaddr = Annotated[str, StringConstraints(min_length=1, max_length=256)]
NonNegative = Annotated[float, Field(ge=0, le=1e15)]


class Record(Message):
    """The body of a record; `ttl_seconds` is the longest that one of its kind may live."""

    limit_bytes: ClassVar[int] = 8 * 1024
    ttl_seconds: ClassVar[float]

    expires: Annotated[float, Field(ge=0, le=2**40)]
    """Unix seconds; the DHT's own expiration must be this one."""


class Serving(Item):
    """What a peer of a pipeline says of its work at a stage."""

    stage: Annotated[int, Field(ge=0, lt=64)]
    rate: NonNegative
    """Microbatches per second, forward and backward, that it could do; 0: not known."""
    queue: Count
    """Microbatches that wait here."""
    moving_to: Annotated[int, Field(ge=0, lt=64)] | None = None
    """The stage that it is about to serve instead."""
    stays: bool = False
    """It serves this stage and no other, whoever needs it elsewhere."""


class RosterEntry(Record):
    """A live member of the run, as it describes itself; refreshed at a third of the time to live."""

    kind: ClassVar[str] = "roster"
    ttl_seconds: ClassVar[float] = 60.0

    name: ShortText
    role: Role
    addresses: Annotated[Many[Multiaddr], Field(max_length=16)]
    """Multiaddrs where it can be dialled, with or without `/p2p/…`; none in client mode."""
    client_mode: bool
    state_digest: Digest | None
    """Of its state at the envelope's epoch; None before it has one."""
    samples_contributed: Count
    samples_per_second: NonNegative
    bandwidth_bytes_per_second: NonNegative
    """0: not known."""
    banned: Count = 0
    """How many peers it has banned."""
    departed: bool
    """It has left in order; this is its last entry."""
    token: Annotated[bytes, Field(max_length=Token.limit_bytes + ENVELOPE_BYTES)] = b""
    """Of the run's organiser (`protocols.admission`), where the run asks for one."""
    directives: Digest | None = None
    """Of the directives that it knows (`DirectiveLog.digest`), so that who knows others asks; None: of none."""
    serving: Serving | None = None
    """In a pipeline; None where it serves no stage."""

    @property
    def stage(self) -> int | None:
        """Whose state it has and averages; None in a run without stages, and where it has none."""
        return self.serving.stage if self.serving is not None else None

    @property
    def moving_to(self) -> int | None:
        """The stage that it is about to serve instead."""
        return self.serving.moving_to if self.serving is not None else None


class DirectivesRecord(Record):
    """What the organiser has directed last, for who comes while no member answers it.

    Only the organiser can sign it anew, so that it goes when the organiser stays away; members hand directives on by
    themselves (`peer.directives`).
    """

    kind: ClassVar[str] = "directives"
    ttl_seconds: ClassVar[float] = 3600.0

    statements: Annotated[Many[Wire], Field(min_length=1, max_length=MAX_STATEMENTS)]
    """Signed `Directive`s."""


RECORDS: dict[str, type[Record]] = {body.kind: body for body in (RosterEntry, DirectivesRecord)}
"""All kinds that a node stores; any other is refused."""

MAX_RECORD_BYTES = max(body.limit_bytes for body in RECORDS.values()) + ENVELOPE_BYTES


def record_key(run: str, kind: str) -> bytes:
    """The key under which all records of that kind and run lie."""
    return f"peer/1/{run}/{kind}".encode()


def record_key_digest(run: str, kind: str) -> bytes:
    """The key as nodes of hivemind's DHT see it: SHA-1 (20 bytes), which spreads keys and protects nothing."""
    return hashlib.sha1(record_key(run, kind), usedforsecurity=False).digest()


def check_record(wire: bytes, *, key_digest: bytes, owner: str, expires: float, now: float) -> Signed[Record]:
    """The record in `wire`, if a node may store it under this key and subkey until `expires` (Unix seconds).

    Raises Rejected: oversized, malformed, wrong_kind, wrong_run (not its key), wrong_sender (not signed by `owner`),
    bad_signature, stale (expired, or expires too late or at another time than its owner signed).
    """
    run, kind = signed_run_and_kind(wire, MAX_RECORD_BYTES)
    body_type = RECORDS.get(kind)
    if body_type is None:
        raise Rejected(Reason.WRONG_KIND, f"{kind[:32]!r} is no kind of record")
    if record_key_digest(run, kind) != key_digest:
        raise Rejected(Reason.WRONG_RUN, f"{kind}: stored under another run's or kind's key")
    check_expiration(body_type, expires, now)  # before the signature, which costs more
    record = open_signed(wire, body_type, run=run, sender=PeerId(owner))
    if record.body.expires != expires:
        raise Rejected(Reason.STALE, f"{kind}: its owner signed another expiration")
    return record


def current_expirations(body_type: type[Record], now: float) -> tuple[float, float]:
    """When a record of now expires: at the earliest, and at the latest."""
    return now - CLOCK_SKEW_SECONDS, now + body_type.ttl_seconds + CLOCK_SKEW_SECONDS


def check_expiration(body_type: type[Record], expires: float, now: float) -> None:
    """Raises Rejected (stale) when a record that expires then is no longer, or cannot yet be, a record of now."""
    earliest, latest = current_expirations(body_type, now)
    if not earliest <= expires <= latest:  # NaN fails too
        raise Rejected(Reason.STALE, f"{body_type.kind}: expires at {expires}, {expires - now:.0f} seconds from now")
