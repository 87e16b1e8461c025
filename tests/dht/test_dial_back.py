"""A peer that is asked to dial back, over real libp2p: it dials whoever asks, and nobody else."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from dht.clock import SystemClock
from dht.dial_back import MAX_PORTS, PAUSE_SECONDS, DialBack, ask_to_dial_back, direct_host, serve_dial_back
from dht.interfaces import Frame, Refused, Stream, TransportError
from dht.node import Node
from dht.sink import LIMIT_BYTES, SINK_KIND, measure_upload, serve_sink
from protocols.encoding import decode, encode
from protocols.rejection import Reason, Rejected
from tests.dht.worlds import identity, run_real, running_node

ASKER = identity(1).peer_id
OTHER = identity(2).peer_id


@asynccontextmanager
async def member_and_asker(directory: Path) -> AsyncIterator[tuple[Node, Node]]:
    async with running_node(directory, identity(1)) as member, running_node(directory, identity(2)) as asker:
        await serve_dial_back(member)
        await serve_sink(member.transport)
        await asker.transport.connect(member.peer_id, member.addresses())
        yield member, asker


async def flood(stream: Stream, size_bytes: int) -> None:
    for _ in range(size_bytes // 2**20):
        await stream.send(Frame(b"", bytes(2**20)))
    await stream.receive()


def port_of(node: Node) -> int:
    return int(node.addresses()[0].split("/")[4])


def test_a_port_where_the_asker_listens_is_reached_and_others_are_not(tmp_path: Path) -> None:
    async def main() -> None:
        async with member_and_asker(tmp_path) as (member, asker):
            heard: asyncio.Queue[bytes] = asyncio.Queue()

            async def other_service(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                writer.write(b"220 mail.example ESMTP ready")
                heard.put_nowait(await reader.read())
                writer.close()

            server = await asyncio.start_server(other_service, "127.0.0.1", 0)
            async with server:
                elsewhere = server.sockets[0].getsockname()[1]
                ports = [port_of(asker), elsewhere, 1]
                tried = await ask_to_dial_back(asker.transport, member.peer_id, ports)
                assert await heard.get() == b"", "something was said to a service that is none of ours"
            assert (tried.host, tried.reached) == ("127.0.0.1", (port_of(asker),))

    run_real(main())


def test_a_host_is_dialled_once_in_a_while(tmp_path: Path) -> None:
    async def main() -> None:
        async with member_and_asker(tmp_path) as (member, asker):
            await ask_to_dial_back(asker.transport, member.peer_id, [port_of(asker)])
            with pytest.raises(Refused) as refused:
                await ask_to_dial_back(asker.transport, member.peer_id, [port_of(asker)])
            assert refused.value.reason == Reason.BUSY

    run_real(main())


def test_upload_is_measured_and_more_than_the_limit_is_not_taken(tmp_path: Path) -> None:
    async def main() -> None:
        async with member_and_asker(tmp_path) as (member, asker):
            assert await measure_upload(asker.transport, member.peer_id, 1024 * 1024, 5.0) > 0
            async with await asker.transport.open_stream(member.peer_id, SINK_KIND) as stream:
                with pytest.raises(TransportError):
                    await flood(stream, 4 * LIMIT_BYTES)
                stream.abort()

    run_real(main())


# -- the service alone ------------------------------------------------------------------------------------------------


class SetClock(SystemClock):
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


def service(*addresses: str) -> tuple[DialBack, SetClock]:
    """Of a peer to which everybody is connected from `addresses`."""

    async def connected_from(_peer: str) -> tuple[str, ...]:
        return addresses

    clock = SetClock()
    return DialBack(connected_from, clock), clock


@pytest.mark.parametrize(
    "asked",
    [None, [], 4001, [0], [65536], [True], ["22"], [[1]], [*range(1, MAX_PORTS + 2)], ["192.0.2.1", 22], {"22": 1}],
)
async def test_what_is_no_list_of_a_few_ports_is_refused(asked: object) -> None:
    with pytest.raises(Rejected, match="malformed"):
        await service("/ip4/127.0.0.1/tcp/1")[0].answer(ASKER, encode(asked))


@pytest.mark.parametrize(
    "addresses", [(), ("/ip4/192.0.2.1/tcp/4001/p2p/12D3KooW/p2p-circuit",), ("/dns4/victim.example/tcp/4001",)]
)
async def test_who_is_not_connected_directly_has_no_host_to_dial(addresses: tuple[str, ...]) -> None:
    with pytest.raises(Rejected, match="unexpected"):
        await service(*addresses)[0].answer(ASKER, encode([22]))


async def test_all_who_ask_from_one_host_wait_together() -> None:
    dial_back, clock = service("/ip4/127.0.0.1/tcp/1")
    assert decode(await dial_back.answer(ASKER, encode([1])), 100) == ["127.0.0.1", []]
    with pytest.raises(Rejected, match="busy"):
        await dial_back.answer(OTHER, encode([1]))
    clock.now += PAUSE_SECONDS
    await dial_back.answer(OTHER, encode([1]))


async def test_an_ipv6_network_counts_as_one_host() -> None:
    dial_back, _ = service("/ip6/::1/tcp/1")
    await dial_back.answer(ASKER, encode([1]))
    with pytest.raises(Rejected, match="busy"):
        await service_at(dial_back, "/ip6/::2/tcp/1").answer(OTHER, encode([1]))


def service_at(dial_back: DialBack, address: str) -> DialBack:
    """The same service, asked from `address`."""

    async def connected_from(_peer: str) -> tuple[str, ...]:
        return (address,)

    dial_back._connected_from = connected_from
    return dial_back


def test_the_host_of_a_direct_address() -> None:
    assert str(direct_host("/ip4/192.0.2.1/tcp/4001")) == "192.0.2.1"
    assert str(direct_host("/ip6/2001:db8::1/tcp/4001")) == "2001:db8::1"
    assert direct_host("/unix/tmp/x") is None
