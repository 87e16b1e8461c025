"""What hivemind's DHT node calls on every record that it is asked to store, or that it finds: ours are accepted alone.

Records arrive as hivemind packs them: the hashed key, the owner as msgpack text, our wire bytes as msgpack bytes.
Refusals are counted by reason; who passed a bad record on is not known here, so that nobody is charged.
"""

from collections import OrderedDict
from collections.abc import Callable

from dht.hivemind_quietly import DHTRecord, RecordValidatorBase
from dht.interfaces import Clock
from protocols.encoding import EncodingError, decode, digest, encode
from protocols.records import MAX_RECORD_BYTES, Record, check_expiration, check_record
from protocols.rejection import Reason, Rejected
from protocols.signed import Signed

MAX_FRESH = 64
"""Records that are looked into in one turn of the event loop, beside those that are remembered. Others are dropped: a
request of a few megabytes, which is handled in one turn, could otherwise hold everybody up for a second."""
_MAX_REMEMBERED = 4096
_MAX_OWNER_BYTES = 128

OnRecordRefused = Callable[[str, str], None]
"""(reason, message)."""
CallSoon = Callable[[Callable[[], None]], object]
"""Calls a function in the next turn of the event loop."""


class RecordValidator(RecordValidatorBase):  # type: ignore[misc]
    """Remembers the records verified last, so that each signature is checked once and not at every lookup."""

    def __init__(self, clock: Clock, on_refused: OnRecordRefused, call_soon: CallSoon) -> None:
        self._clock = clock
        self._on_refused = on_refused
        self._fresh, self._refused = _PerTurn(call_soon), _PerTurn(call_soon)
        self._verified: OrderedDict[bytes, Signed[Record]] = OrderedDict()

    def validate(self, record: DHTRecord) -> bool:
        """hivemind's question; counts a no."""
        try:
            self.open(record.key, _owner(record.subkey), record.value, record.expiration_time)
        except Rejected as rejection:
            if self._refused.next() <= MAX_FRESH + 1:  # counting takes time too
                self._on_refused(rejection.reason, str(rejection))
            return False
        return True

    def open(self, key_digest: bytes, owner: str, value: object, expires: object) -> Signed[Record]:
        """The record in `value` (msgpack of the wire bytes). Raises Rejected."""
        if not isinstance(value, bytes) or not isinstance(expires, float) or not isinstance(key_digest, bytes):
            raise Rejected(Reason.MALFORMED, "a record that is not bytes with an expiration")
        now = self._clock.wall()
        if len(value) > MAX_RECORD_BYTES + 8:
            raise Rejected(Reason.OVERSIZED, f"a record of {len(value)} bytes")
        token = digest(key_digest, encode([owner, expires]), value)
        if (known := self._verified.get(token)) is not None:
            check_expiration(type(known.body), expires, now)
            return known
        if self._fresh.next() > MAX_FRESH:
            raise Rejected(Reason.BUSY, f"more than {MAX_FRESH} records at once")
        record = check_record(_wire(value), key_digest=key_digest, owner=owner, expires=expires, now=now)
        self._verified[token] = record
        if len(self._verified) > _MAX_REMEMBERED:
            self._verified.popitem(last=False)
        return record


class _PerTurn:
    """Counts what happens in one turn of the event loop."""

    def __init__(self, call_soon: CallSoon) -> None:
        self._call_soon = call_soon
        self._count = 0

    def next(self) -> int:
        if not self._count:
            self._call_soon(self._reset)
        self._count += 1
        return self._count

    def _reset(self) -> None:
        self._count = 0


def _owner(subkey: bytes) -> str:
    try:
        owner = decode(subkey, _MAX_OWNER_BYTES)
    except EncodingError as error:
        raise Rejected(Reason.MALFORMED, f"subkey: {error}") from error
    if not isinstance(owner, str):
        raise Rejected(Reason.MALFORMED, "the subkey of a record must be a PeerID")
    return owner


def _wire(value: bytes) -> bytes:
    try:
        wire = decode(value, MAX_RECORD_BYTES + 8)
    except EncodingError as error:
        raise Rejected(Reason.MALFORMED, f"record: {error}") from error
    if not isinstance(wire, bytes):
        raise Rejected(Reason.MALFORMED, "a record must be bytes")
    return wire
