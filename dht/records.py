"""`DhtRecords`: the signed records of runs in hivemind's DHT.

A lookup asks every node near the key and merges what they say, instead of stopping at hivemind's first good answer: a
node that claims the latest expiration could otherwise hide the records that the others hold.
"""

import asyncio
from typing import Any

from dht.hivemind_quietly import DHTID, DHTNode, DictionaryDHTValue
from dht.interfaces import Records
from dht.record_validator import RecordValidator
from protocols.identity import PeerId
from protocols.records import Record, record_key
from protocols.rejection import Rejected
from protocols.signed import Signed

LOOKUP_NODES = 8
"""How many nodes are asked: hivemind stores a record on the 5 nearest."""


class DhtRecords(Records):
    def __init__(self, node: DHTNode, validator: RecordValidator, *, client_mode: bool) -> None:
        self._node = node
        self._validator = validator
        self._client_mode = client_mode

    async def publish(self, record: Signed[Any], expires: float) -> bool:
        """`expires` must be what the body says; a node of the DHT, this one included, must take it."""
        return bool(
            await self._node.store(
                record_key(record.run, record.kind),
                record.wire,
                expires,
                subkey=record.sender,
                exclude_self=self._client_mode,
            )
        )

    async def lookup(self, run: str, kind: str) -> list[Signed[Any]]:
        key = DHTID.generate(source=record_key(run, kind))
        nearest = await self._node.find_nearest_nodes([key], k_nearest=LOOKUP_NODES, exclude_self=True)
        async with asyncio.TaskGroup() as group:
            answers = [group.create_task(self._node.protocol.call_find(peer, [key])) for peer in nearest[key].values()]
        entries = [answer[key][0] for task in answers if (answer := task.result()) and key in answer]
        entries.append(self._node.protocol.storage.get(key))
        newest: dict[PeerId, Signed[Record]] = {}
        for entry in entries:
            if entry is None or not isinstance(entry.value, DictionaryDHTValue):
                continue
            for owner, (value, expires) in list(entry.value.items()):
                record = self._verified(key, owner, value, expires)
                if record is None or record.run != run or record.kind != kind:
                    continue
                if owner not in newest or newest[owner].sequence < record.sequence:
                    newest[owner] = record
        return list(newest.values())

    def _verified(self, key: DHTID, owner: str, value: bytes, expires: float) -> Signed[Record] | None:
        try:
            return self._validator.open(key.to_bytes(), owner, value, expires)
        except Rejected:
            return None
