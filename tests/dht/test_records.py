"""Records between real DHT nodes: what is published is found, what is planted is not."""

import asyncio
import time
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dht.clock import SystemClock
from dht.hivemind_p2p import AttachedP2P
from dht.hivemind_quietly import DHTID, DHTNode, DHTRecord, DictionaryDHTValue, PeerID
from dht.node import Node
from dht.p2pd import P2pd
from dht.record_storage import MAX_RECORDS_PER_KEY, RecordStorage
from dht.record_validator import MAX_FRESH, OnRecordRefused, RecordValidator
from protocols.encoding import encode
from protocols.identity import Identity
from protocols.records import MAX_RECORD_BYTES, RosterEntry, record_key
from protocols.rejection import Reason
from protocols.signed import Signed, Signer
from tests.dht.worlds import LOOPBACK, identity, identity_file, run_real, running_node
from tests.protocols.test_records import OTHER_RUN, RUN, entry

KEY = DHTID.generate(source=record_key(RUN, "roster"))


class Swarm:
    """Nodes of ours that know each other, and one plain hivemind node without our validator: the attacker's."""

    def __init__(self, directory: Path, resources: AsyncExitStack) -> None:
        self._directory = directory
        self._resources = resources
        self.refused: Counter[str] = Counter()

    async def nodes(self, count: int) -> list[Node]:
        nodes: list[Node] = []
        for number in range(1, count + 1):
            nodes.append(
                await self._resources.enter_async_context(
                    running_node(
                        self._directory,
                        identity(number),
                        initial_peers=nodes[0].addresses() if nodes else (),
                        on_record_refused=lambda reason, message: self.refused.update([reason]),
                    )
                )
            )
        for node in nodes[1:]:
            assert await node.bootstrap.wait_connected(20)
        return nodes

    async def plain_node(self, number: int, other: Node) -> DHTNode:
        p2pd = await P2pd.start(identity_file(self._directory, identity(number)), [LOOPBACK], [], client_mode=False)
        self._resources.push_async_callback(p2pd.close)
        p2p = await AttachedP2P.attach(p2pd)
        self._resources.push_async_callback(p2p.detach)
        dht = await DHTNode.create(p2p, cache_locally=False, cache_on_store=False)
        await other.transport.connect(identity(number).peer_id, await _addresses(p2p))
        assert await other.dht.protocol.call_ping(dht.peer_id) is not None
        assert await dht.protocol.call_ping(other.dht.peer_id) is not None
        return dht


async def _addresses(p2p: AttachedP2P) -> list[str]:
    return [str(address) for address in await p2p.get_visible_maddrs()]


def on_swarm(scenario: Any, directory: Path) -> None:
    async def main() -> None:
        async with AsyncExitStack() as resources:
            await scenario(Swarm(directory, resources))

    run_real(main())


def sign(who: Identity, sequence: int = 1, run: str = RUN, **changes: Any) -> Signed[RosterEntry]:
    return Signer(who, run, sequence).sign(entry(**({"expires": time.time() + 60} | changes)), epoch=0)


async def names(node: Node) -> dict[str, str]:
    return {record.sender: record.body.name for record in await node.records.lookup(RUN, "roster")}


def validator_in_one_turn(on_refused: OnRecordRefused = lambda reason, message: None) -> RecordValidator:
    """All that it is asked comes in one turn of the event loop."""
    return RecordValidator(SystemClock(), on_refused, lambda function: None)


def test_everybody_finds_what_everybody_published(tmp_path: Path) -> None:
    async def scenario(swarm: Swarm) -> None:
        nodes = await swarm.nodes(4)
        for number, node in enumerate(nodes):
            record = sign(identity(number + 1), name=str(number))
            assert await node.records.publish(record, record.body.expires)
        expected = {identity(number + 1).peer_id: str(number) for number in range(4)}
        for node in nodes:
            assert await names(node) == expected
            assert await node.records.lookup(OTHER_RUN, "roster") == []
        assert not swarm.refused

    on_swarm(scenario, tmp_path)


def test_node_alone_finds_its_own_record_and_later_ones_get_it(tmp_path: Path) -> None:
    async def scenario(swarm: Swarm) -> None:
        (node,) = await swarm.nodes(1)
        record = sign(identity(1), name="alone")
        assert await node.records.publish(record, record.body.expires)
        assert await names(node) == {identity(1).peer_id: "alone"}
        async with running_node(tmp_path, identity(9), initial_peers=node.addresses()) as joiner:
            assert await joiner.bootstrap.wait_connected(20)
            assert await names(joiner) == {identity(1).peer_id: "alone"}

    on_swarm(scenario, tmp_path)


def test_client_mode_publishes_and_looks_up(tmp_path: Path) -> None:
    async def scenario(swarm: Swarm) -> None:
        (node,) = await swarm.nodes(1)
        options = {"initial_peers": node.addresses(), "client_mode": True}
        async with running_node(tmp_path, identity(9), **options) as client:
            assert await client.bootstrap.wait_connected(20)
            record = sign(identity(9), name="client")
            assert await client.records.publish(record, record.body.expires)
            assert await names(node) == await names(client) == {identity(9).peer_id: "client"}

    on_swarm(scenario, tmp_path)


def test_newer_statement_replaces_and_older_does_not(tmp_path: Path) -> None:
    async def scenario(swarm: Swarm) -> None:
        one, other = await swarm.nodes(2)
        now = time.time()
        new = sign(identity(1), sequence=10, name="new", expires=now + 50)
        old = sign(identity(1), sequence=1, name="old", expires=now + 55)
        newest = sign(identity(1), sequence=11, name="newest", expires=now + 56)
        assert await one.records.publish(new, new.body.expires)
        assert not await other.records.publish(old, old.body.expires)
        assert await names(other) == {identity(1).peer_id: "new"}
        assert await one.records.publish(newest, newest.body.expires)
        assert await names(other) == {identity(1).peer_id: "newest"}

    on_swarm(scenario, tmp_path)


def test_attacker_cannot_plant_overwrite_or_prolong(tmp_path: Path) -> None:
    async def scenario(swarm: Swarm) -> None:
        one, _ = await swarm.nodes(2)
        attacker = await swarm.plain_node(20, one)
        victim, mallory = identity(1), identity(20)
        record = sign(victim, name="truth")
        expires = record.body.expires
        assert await one.records.publish(record, expires)
        target = PeerID.from_base58(one.peer_id)
        forged = sign(mallory, name="lie", expires=expires)
        late = time.time() + 3600
        dumps = attacker.protocol.serializer.dumps
        attempts = [
            (dumps(forged.wire), expires, victim.peer_id, Reason.WRONG_SENDER),
            (dumps(record.wire), expires + 20, victim.peer_id, Reason.STALE),
            (dumps(sign(mallory, expires=late).wire), late, mallory.peer_id, Reason.STALE),
            (dumps(sign(mallory, run=OTHER_RUN, expires=expires).wire), expires, mallory.peer_id, Reason.WRONG_RUN),
            (dumps(record.wire[:-1]), expires, victim.peer_id, Reason.MALFORMED),
            (dumps("text"), expires, victim.peer_id, Reason.MALFORMED),
            (b"\xc1", expires, victim.peer_id, Reason.MALFORMED),
            (bytes(MAX_RECORD_BYTES * 2), expires, victim.peer_id, Reason.OVERSIZED),
            (dumps(record.wire), expires, None, Reason.MALFORMED),
            (dumps(record.wire), expires, ["a", "list"], Reason.MALFORMED),
            (dumps(record.wire), float("nan"), victim.peer_id, Reason.STALE),
        ]
        for value, when, subkey, reason in attempts:
            before = swarm.refused[reason]
            assert await attacker.protocol.call_store(target, [KEY], [value], [when], [subkey]) == [False], reason
            assert swarm.refused[reason] == before + 1
        assert await names(one) == {victim.peer_id: "truth"}

    on_swarm(scenario, tmp_path)


def test_whole_dictionary_is_taken_without_its_bad_entries(tmp_path: Path) -> None:
    async def scenario(swarm: Swarm) -> None:
        one, _ = await swarm.nodes(2)
        attacker = await swarm.plain_node(20, one)
        dumps = attacker.protocol.serializer.dumps
        good, forged = sign(identity(2), name="good"), sign(identity(20), name="forged")
        dictionary = DictionaryDHTValue()
        dictionary.store(identity(2).peer_id, dumps(good.wire), good.body.expires)
        dictionary.store(identity(3).peer_id, dumps(forged.wire), forged.body.expires)
        dictionary.store(("a", 1), b"junk", time.time() + 30)
        target = PeerID.from_base58(one.peer_id)
        await attacker.protocol.call_store(target, [KEY], [dictionary], [time.time() + 30])
        assert await names(one) == {identity(2).peer_id: "good"}
        assert swarm.refused[Reason.WRONG_SENDER] >= 1

    on_swarm(scenario, tmp_path)


def test_node_that_claims_the_latest_answer_cannot_hide_the_others(tmp_path: Path) -> None:
    async def scenario(swarm: Swarm) -> None:
        one, other = await swarm.nodes(2)
        attacker = await swarm.plain_node(20, one)
        await other.transport.connect(identity(20).peer_id, await _addresses(attacker.p2p))
        assert await other.dht.protocol.call_ping(attacker.peer_id) is not None
        record = sign(identity(1), name="truth")
        assert await one.records.publish(record, record.body.expires)
        own = sign(identity(20), name="attacker")
        shown = DictionaryDHTValue()
        shown.store(identity(20).peer_id, attacker.protocol.serializer.dumps(own.wire), own.body.expires)
        shown.store(identity(1).peer_id, b"poison", time.time() + 1000)
        attacker.protocol.storage.data.clear()
        attacker.protocol.storage.clear()
        attacker.protocol.storage.store(KEY, shown, time.time() + 10**9)
        assert await names(other) == {identity(1).peer_id: "truth", identity(20).peer_id: "attacker"}

    on_swarm(scenario, tmp_path)


def test_plain_values_are_not_stored(tmp_path: Path) -> None:
    async def scenario(swarm: Swarm) -> None:
        one, _ = await swarm.nodes(2)
        attacker = await swarm.plain_node(20, one)
        target = PeerID.from_base58(one.peer_id)
        soon = time.time() + 30
        for in_cache in (False, True):
            stored = await attacker.protocol.call_store(target, [KEY], [b"value"], [soon], in_cache=in_cache)
            assert stored == [False]
        assert len(one.dht.protocol.storage) == len(one.dht.protocol.cache) == 0

    on_swarm(scenario, tmp_path)


@given(st.binary(max_size=100), st.binary(max_size=100), st.binary(max_size=200), st.floats())
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_validator_refuses_anything_and_never_raises(key: bytes, subkey: bytes, value: bytes, expires: float) -> None:
    refused: list[str] = []
    validator = validator_in_one_turn(lambda reason, message: refused.append(reason))
    assert not validator.validate(DHTRecord(key, subkey, value, expires))
    assert not validator.validate(DHTRecord(KEY.to_bytes(), encode(identity(1).peer_id), encode(value), expires))
    assert len(refused) == 2


@pytest.mark.parametrize("expires", [None, "soon", 10**400, b""])
def test_validator_refuses_an_expiration_that_is_no_number(expires: Any) -> None:
    validator = validator_in_one_turn()
    wire = encode(sign(identity(1)).wire)
    assert not validator.validate(DHTRecord(KEY.to_bytes(), encode(identity(1).peer_id), wire, expires))


def test_storage_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dht.record_storage.MAX_RECORDS_PER_KEY", 3)
    assert MAX_RECORDS_PER_KEY > 3
    validator = validator_in_one_turn()
    storage = RecordStorage(validator, RUN)
    for number in range(1, 6):
        record = sign(identity(number))
        stored = storage.store_subkey(KEY, identity(number).peer_id, encode(record.wire), record.body.expires)
        assert stored == (number <= 3)
    renewed = sign(identity(1), sequence=5, expires=time.time() + 80)
    assert storage.store_subkey(KEY, identity(1).peer_id, encode(renewed.wire), renewed.body.expires)
    assert storage.record_count() == 3


class WrongClock(SystemClock):
    ahead_seconds = 0.0

    def wall(self) -> float:
        return super().wall() + self.ahead_seconds


def test_what_was_stored_while_the_clock_was_wrong_keeps_nobody_out() -> None:
    clock = WrongClock()
    storage = RecordStorage(RecordValidator(clock, lambda reason, message: None, lambda function: None), RUN)

    def store(sequence: int) -> bool:
        record = sign(identity(1), sequence=sequence, expires=clock.wall() + 60)
        return storage.store_subkey(KEY, identity(1).peer_id, encode(record.wire), record.body.expires)

    clock.ahead_seconds = 3600.0
    assert store(sequence=1)
    clock.ahead_seconds = 0.0
    assert store(sequence=2)
    assert not store(sequence=1)
    assert storage.record_count() == 1


def test_records_of_other_runs_give_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dht.record_storage.MAX_RECORDS", 4)
    storage = RecordStorage(validator_in_one_turn(), RUN)
    foreign = DHTID.generate(source=record_key(OTHER_RUN, "roster"))

    def store(number: int, run: str, key: DHTID) -> bool:
        record = sign(identity(number), run=run, expires=time.time() + 30 + number)
        return storage.store_subkey(key, identity(number).peer_id, encode(record.wire), record.body.expires)

    assert [store(number, OTHER_RUN, foreign) for number in range(1, 6)] == [True] * 4 + [False]
    assert [store(number, RUN, KEY) for number in range(1, 3)] == [True] * 2
    assert [owner for owner, _ in storage.get(foreign).value.items()] == [identity(n).peer_id for n in (3, 4)]
    assert [store(number, RUN, KEY) for number in range(3, 6)] == [True] * 2 + [False]
    assert foreign not in storage
    assert storage.record_count() == 4


def test_only_so_many_foreign_runs_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dht.record_storage.MAX_KEYS", 2)
    storage = RecordStorage(validator_in_one_turn(), RUN)

    def store(run: str) -> bool:
        record = sign(identity(1), run=run)
        key = DHTID.generate(source=record_key(run, "roster"))
        return storage.store_subkey(key, identity(1).peer_id, encode(record.wire), record.body.expires)

    runs = [f"other-{letter * 26}" for letter in "abc"]
    assert [store(run) for run in (*runs, RUN)] == [True, True, False, True]


def test_one_request_with_thousands_of_records_holds_up_nobody(tmp_path: Path) -> None:
    async def scenario(swarm: Swarm) -> None:
        (one,) = await swarm.nodes(1)
        attacker = await swarm.plain_node(20, one)
        owner, wire = identity(20).peer_id, sign(identity(20)).wire
        count = 5000
        forged = [encode(wire[:-4] + number.to_bytes(4, "big")) for number in range(count)]
        soon = time.time() + 60
        stored = await attacker.protocol.call_store(
            PeerID.from_base58(one.peer_id), [KEY] * count, forged, [soon] * count, [owner] * count
        )
        assert stored == [False] * count
        assert swarm.refused == {Reason.BAD_SIGNATURE: MAX_FRESH, Reason.BUSY: 1}

    on_swarm(scenario, tmp_path)


def test_many_lookups_at_once(tmp_path: Path) -> None:
    async def scenario(swarm: Swarm) -> None:
        one, other = await swarm.nodes(2)
        record = sign(identity(1))
        await one.records.publish(record, record.body.expires)
        found = await asyncio.gather(*(other.records.lookup(RUN, "roster") for _ in range(20)))
        assert all(len(records) == 1 for records in found)

    on_swarm(scenario, tmp_path)
