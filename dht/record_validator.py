"""What hivemind's DHT node calls on every record that it is asked to store, or that it finds: ours are accepted alone.

Records arrive as hivemind packs them: the hashed key, the owner as msgpack text, our wire bytes as msgpack bytes.
Refusals are counted by reason; who passed a bad record on is not known here, so that nobody is charged.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from dht.hivemind_quietly import DHTID, DHTLocalStorage, DHTProtocol, DHTRecord, DictionaryDHTValue, RecordValidatorBase
from dht.interfaces import Clock
from protocols.encoding import EncodingError, decode, digest, encode
from protocols.records import MAX_RECORD_BYTES, Record, check_expiration, check_record
from protocols.rejection import Reason, Rejected
from protocols.signed import Signed

log = logging.getLogger(__name__)

MAX_RECORDS = 8192
"""Of all runs; at MAX_RECORD_BYTES each they take less than 72 MiB."""
MAX_RECORDS_PER_KEY = 2048
_MAX_REMEMBERED = 4096
_MAX_OWNER_BYTES = 128

OnRecordRefused = Callable[[str, str], None]
"""(reason, message)."""


class RecordValidator(RecordValidatorBase):  # type: ignore[misc]
    """Remembers the records verified last, so that each signature is checked once and not at every lookup."""

    def __init__(self, clock: Clock, on_refused: OnRecordRefused) -> None:
        self._clock = clock
        self._on_refused = on_refused
        self._verified: OrderedDict[bytes, Signed[Record]] = OrderedDict()

    def validate(self, record: DHTRecord) -> bool:
        """hivemind's question; counts a no."""
        try:
            self.open(record.key, _owner(record.subkey), record.value, record.expiration_time)
        except Rejected as rejection:
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
        record = check_record(_wire(value), key_digest=key_digest, owner=owner, expires=expires, now=now)
        self._verified[token] = record
        if len(self._verified) > _MAX_REMEMBERED:
            self._verified.popitem(last=False)
        return record


class RecordStorage(DHTLocalStorage):  # type: ignore[misc]
    """hivemind's storage, bounded, in which an older statement never replaces a newer one of the same owner.

    Nor does one that is no record of now, because our clock was wrong when it came, keep a newer one out.
    """

    def __init__(self, validator: RecordValidator) -> None:
        super().__init__()
        self._validator = validator

    def store(self, key: DHTID, value: Any, expiration_time: float, subkey: Any = None) -> bool:
        """A value without a subkey is none of ours."""
        if subkey is not None:
            return self.store_subkey(key, subkey, value, expiration_time)
        if not isinstance(value, DictionaryDHTValue):
            return False
        return bool(super().store(key, value, expiration_time))

    def store_subkey(self, key: DHTID, subkey: Any, value: bytes, expiration_time: float) -> bool:
        entry = self.get(key)
        owners = entry.value if entry is not None else {}
        held = owners.get(subkey)
        if held is not None:
            held_sequence = self._sequence(key, subkey, *held)
            if self._sequence(key, subkey, value, expiration_time) < held_sequence:
                return False
            if held_sequence < 0:  # of when our clock was wrong; hivemind would keep it, for it claims to expire later
                del owners[subkey]
        elif len(owners) >= MAX_RECORDS_PER_KEY or self.record_count() >= MAX_RECORDS:
            return False
        return bool(super().store_subkey(key, subkey, value, expiration_time))

    def _sequence(self, key: DHTID, subkey: Any, value: bytes, expires: float) -> int:
        """The number of a statement, −1 where it is none (any more)."""
        try:
            return self._validator.open(key.to_bytes(), subkey, value, expires).sequence
        except Rejected:
            return -1

    def record_count(self) -> int:
        return sum(len(entry.value) for _, entry in self.items())


def guard(protocol: DHTProtocol, validator: RecordValidator) -> None:
    """Makes hivemind's node keep its records in bounded storage, and take the good records of a partly bad dictionary.

    Otherwise one bad record, planted on a node without our validator, would make every lookup there come back empty.
    """
    protocol.storage = RecordStorage(validator)
    protocol.cache = RecordStorage(validator)

    def drop_invalid(key_digest: bytes, dictionary: DictionaryDHTValue) -> bool:
        with dictionary.freeze():
            for subkey, (value, expires) in list(dictionary.items()):
                packed = DHTRecord(key_digest, protocol.serializer.dumps(subkey), value, expires)
                if not validator.validate(packed):
                    del dictionary[subkey]
            return bool(dictionary)

    protocol._validate_dictionary = drop_invalid


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
