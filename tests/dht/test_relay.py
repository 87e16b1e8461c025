"""Peers that nobody can dial reach each other through one that passes their connections on."""

import asyncio
from pathlib import Path

from dht.addresses import parse_address, transport_bytes
from dht.interfaces import TransportError
from dht.node import Node
from tests.dht.test_p2pd_restart import ask, echo, kill
from tests.dht.worlds import identity, run_real, running_node


async def connect(one: Node, other: Node) -> None:
    """Waits until the relay has a place for `other`, of which there are no events."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await one.transport.connect(other.peer_id, other.addresses())
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


def test_circuit_is_encoded_as_libp2p_has_it() -> None:
    relay, peer = identity(1), identity(2)
    address = parse_address(f"/ip4/192.0.2.1/tcp/4001/p2p/{relay.peer_id}/p2p-circuit/p2p/{peer.peer_id}")
    assert address.peer == peer.peer_id
    encoded = transport_bytes(address.transport)
    assert encoded.startswith(transport_bytes("/ip4/192.0.2.1/tcp/4001") + bytes([0xA5, 0x03, 38, 0, 36]))
    assert encoded.endswith(bytes([0xA2, 0x02]))
