"""Where our node of hivemind's DHT keeps records: bounded, those of our own run before those of others."""

from typing import Any

from dht.hivemind_quietly import DHTID, DHTLocalStorage, DHTProtocol, DHTRecord, DictionaryDHTValue
from dht.record_validator import RecordValidator
from protocols.records import RECORDS, record_key_digest
from protocols.rejection import Reason, Rejected

MAX_RECORDS = 8192
"""Of all runs; at MAX_RECORD_BYTES each they take less than 72 MiB."""
MAX_RECORDS_PER_KEY = 2048
MAX_KEYS = 256
"""Of foreign runs and kinds."""


class RecordStorage(DHTLocalStorage):  # type: ignore[misc]
    """hivemind's storage, bounded, in which an older statement never replaces a newer one of the same owner.

    Nor does one that is no record of now, because our clock was wrong when it came, keep a newer one out. The records
    of our own run come first: when it is full, they take the places of others.
    """

    def __init__(self, validator: RecordValidator, run: str | None) -> None:
        """`run`: ours."""
        super().__init__()
        self._validator = validator
        self._own_keys = {DHTID.from_bytes(record_key_digest(run, kind)) for kind in RECORDS} if run else set()

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
            try:
                held_sequence = self._sequence(key, subkey, *held)
                if self._sequence(key, subkey, value, expiration_time) < held_sequence:
                    return False
            except Rejected:  # busy: which one is newer is not known
                return False
            if held_sequence < 0:  # of when our clock was wrong; hivemind would keep it, for it claims to expire later
                del owners[subkey]
        elif len(owners) >= MAX_RECORDS_PER_KEY or not self._make_room(key):
            return False
        return bool(super().store_subkey(key, subkey, value, expiration_time))

    def _make_room(self, key: DHTID) -> bool:
        """Whether one more record may come under `key`; one of a foreign run goes where that is needed."""
        if key not in self._own_keys:
            return self.record_count() < MAX_RECORDS and (key in self or len(self) < MAX_KEYS)
        if self.record_count() >= MAX_RECORDS:
            foreign = [(len(entry.value), other) for other, entry in self.items() if other not in self._own_keys]
            if not foreign:
                return False
            _, largest = max(foreign)
            records = self.get(largest).value
            owner, _ = records.top()
            del records[owner]
            if not records:
                del self[largest]
        return True

    def _sequence(self, key: DHTID, subkey: Any, value: bytes, expires: float) -> int:
        """The number of a statement, −1 where it is none (any more). Raises Rejected (busy)."""
        try:
            return self._validator.open(key.to_bytes(), subkey, value, expires).sequence
        except Rejected as rejection:
            if rejection.reason is Reason.BUSY:
                raise
            return -1

    def record_count(self) -> int:
        return sum(len(entry.value) for _, entry in self.items())


def guard(protocol: DHTProtocol, validator: RecordValidator, run: str | None) -> None:
    """Makes hivemind's node keep its records in bounded storage, and take the good records of a partly bad dictionary.

    Otherwise one bad record, planted on a node without our validator, would make every lookup there come back empty.
    `run`: ours.
    """
    protocol.storage = RecordStorage(validator, run)
    protocol.cache = RecordStorage(validator, run)

    def drop_invalid(key_digest: bytes, dictionary: DictionaryDHTValue) -> bool:
        with dictionary.freeze():
            for subkey, (value, expires) in list(dictionary.items()):
                packed = DHTRecord(key_digest, protocol.serializer.dumps(subkey), value, expires)
                if not validator.validate(packed):
                    del dictionary[subkey]
            return bool(dictionary)

    protocol._validate_dictionary = drop_invalid
