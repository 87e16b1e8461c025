"""Peers that nobody can dial reach each other through one that passes their connections on."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from dht.addresses import on_this_machine, parse_address, transport_bytes
from dht.control import ControlError
from dht.interfaces import Frame, Stream, TransportError
from dht.node import Node
from dht.relay_limit import ENOUGH_BYTES, _field, bytes_offered
from tests.dht.test_p2pd_restart import ask, echo, kill
from tests.dht.worlds import identity, run_real, running_node


async def connect(one: Node, other: Node) -> None:
    await connect_to(one, other, other.addresses())


async def connect_to(one: Node, other: Node, addresses: Sequence[str]) -> None:
    """Waits until the relay has a place for `other`, of which there are no events."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await one.transport.connect(other.peer_id, addresses)
            except TransportError:
                await asyncio.sleep(0.1)


def test_two_in_client_mode_meet_behind_one_relay(tmp_path: Path) -> None:
    async def main() -> None:
        async with running_node(tmp_path, identity(1), serve_relay=True) as relay:
            options = {"client_mode": True, "relays": relay.addresses(), "initial_peers": relay.addresses()}
            async with (
                running_node(tmp_path, identity(2), **options) as one,
                running_node(tmp_path, identity(3), **options) as two,
            ):
                assert two.addresses() == (f"{relay.addresses()[0]}/p2p-circuit/p2p/{two.peer_id}",)
                await two.transport.serve_requests("echo", echo)
                await connect(one, two)
                assert await one.transport.request(two.peer_id, "echo", b"x", 10) == b"x"
                await kill(two)
                assert await ask(one, two, b"again") == b"again"

    run_real(main())


MEGABYTE = 1024 * 1024
DEFAULT_LIMIT_BYTES = 128 * 1024


async def send_a_megabyte(one: Node, other: Node) -> None:
    arrived = asyncio.Event()

    async def count(stream: Stream) -> None:
        received = 0
        while (frame := await stream.receive()) is not None:
            received += len(frame.payload)
        assert received == MEGABYTE
        arrived.set()

    await other.transport.serve_streams("bulk", count)
    async with asyncio.timeout(30), await one.transport.open_stream(other.peer_id, "bulk") as stream:
        for _ in range(16):
            await stream.send(Frame(payload=bytes(MEGABYTE // 16)))
        await stream.close()
        await arrived.wait()


def test_a_relay_passes_more_than_the_default_of_128_kib_also_after_its_p2pd_was_killed(tmp_path: Path) -> None:
    async def main() -> None:
        async with running_node(tmp_path, identity(1), serve_relay=True) as relay:
            await kill(relay)
            options = {"client_mode": True, "relays": relay.addresses(), "initial_peers": relay.addresses()}
            async with (
                running_node(tmp_path, identity(2), **options) as one,
                running_node(tmp_path, identity(3), **options) as two,
            ):
                await connect(one, two)
                await send_a_megabyte(one, two)

    run_real(main())


def test_two_that_listen_reach_each_other_through_the_relay_alone(tmp_path: Path) -> None:
    """`--relay` without `--client-mode`: whoever can dial does, the others come through the relay."""

    async def main() -> None:
        async with running_node(tmp_path, identity(1), serve_relay=True) as relay:
            options = {"relays": relay.addresses(), "initial_peers": relay.addresses()}
            async with (
                running_node(tmp_path, identity(2), **options) as one,
                running_node(tmp_path, identity(3), **options) as two,
            ):
                direct, circuit = two.addresses()
                assert circuit == f"{relay.addresses()[0]}/p2p-circuit/p2p/{two.peer_id}"
                assert "/p2p-circuit/" not in direct
                await connect_to(one, two, [circuit])
                await send_a_megabyte(one, two)

    run_real(main())


def test_every_start_of_a_relay_offers_its_own_limits(tmp_path: Path) -> None:
    async def main() -> None:
        for _ in range(3):
            async with running_node(tmp_path, identity(1), serve_relay=True) as relay:
                where = [parse_address(address).transport for address in relay.addresses()]
                assert await bytes_offered(relay.peer_id, where) >= ENOUGH_BYTES
        async with running_node(tmp_path, identity(1)) as plain:
            where = [parse_address(address).transport for address in plain.addresses()]
            assert await bytes_offered(plain.peer_id, where) == DEFAULT_LIMIT_BYTES

    run_real(main())


def test_a_field_of_a_message() -> None:
    answer = bytes([0x08, 2, 0x22, 5, 0x08, 0x78, 0x10, 0x80, 0x08, 0x28, 0x64])  # STATUS, limit (120, 1024), OK
    assert _field(answer, 4) == bytes([0x08, 0x78, 0x10, 0x80, 0x08])
    assert _field(bytes([0x08, 0x78, 0x10, 0x80, 0x08]), 2) == 1024
    assert _field(answer, 3) == 0
    with pytest.raises(ControlError):
        _field(answer[:-1], 9)


def test_who_listens_everywhere_is_reached_on_loopback() -> None:
    listen = ["/ip4/0.0.0.0/tcp/4001", "/ip6/::/tcp/4001", "/ip4/192.0.2.1/tcp/4001", "/ip4/0.0.0.0/tcp/0"]
    expected = ["/ip4/127.0.0.1/tcp/4001", "/ip6/::1/tcp/4001", "/ip4/192.0.2.1/tcp/4001"]
    assert on_this_machine(listen) == expected


def test_circuit_is_encoded_as_libp2p_has_it() -> None:
    relay, peer = identity(1), identity(2)
    address = parse_address(f"/ip4/192.0.2.1/tcp/4001/p2p/{relay.peer_id}/p2p-circuit/p2p/{peer.peer_id}")
    assert address.peer == peer.peer_id
    encoded = transport_bytes(address.transport)
    assert encoded.startswith(transport_bytes("/ip4/192.0.2.1/tcp/4001") + bytes([0xA5, 0x03, 38, 0, 36]))
    assert encoded.endswith(bytes([0xA2, 0x02]))
