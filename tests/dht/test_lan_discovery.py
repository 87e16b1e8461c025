"""Peers on one local network find each other by multicast DNS, and trust nothing that is said there."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

from dht.lan_discovery import (
    MAX_ANNOUNCED,
    SERVICE_TYPE,
    LanDiscovery,
    lan_addresses,
    parse_record,
    record,
    service_name,
)
from tests.dht.worlds import identity, run_real
from tests.protocols.test_records import OTHER_RUN, RUN

ONE, TWO, THREE = (identity(number).peer_id for number in (1, 2, 3))
LOOPBACK = ["127.0.0.1"]
ADDRESS = "/ip4/192.0.2.7/tcp/4001"


@asynccontextmanager
async def announced(peer: str, run: str = RUN, addresses: tuple[str, ...] = (ADDRESS,)) -> AsyncIterator[LanDiscovery]:
    discovery = await LanDiscovery.start(run, peer, [f"{address}/p2p/{peer}" for address in addresses], LOOPBACK)
    try:
        yield discovery
    finally:
        await discovery.close()


async def until_sees(discovery: LanDiscovery, peers: set[str]) -> None:
    """Waits for datagrams, of whose arrival there are no events."""
    async with asyncio.timeout(20):
        while {peer for peer, _ in discovery.others()} != peers:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def test_peers_of_one_run_find_each_other_and_see_who_leaves() -> None:
    async def main() -> None:
        async with announced(ONE) as one, announced(THREE, OTHER_RUN) as stranger:
            async with announced(TWO) as two:
                await until_sees(one, {TWO})
                await until_sees(two, {ONE})
                assert one.others() == [(TWO, (f"{ADDRESS}/p2p/{TWO}",))]
            await until_sees(one, set())
            assert stranger.others() == []

    run_real(main())


def test_a_peer_in_client_mode_finds_others_and_is_not_announced() -> None:
    async def main() -> None:
        async with announced(ONE) as one, announced(TWO, addresses=()) as client:
            await until_sees(client, {ONE})
            assert one.others() == []

    run_real(main())


def test_a_record_under_the_name_of_another_is_ignored() -> None:
    async def main() -> None:
        async with announced(ONE) as one, announced(THREE):
            liar = AsyncZeroconf(interfaces=LOOPBACK)
            properties = record(RUN, TWO, [ADDRESS])
            info = AsyncServiceInfo(SERVICE_TYPE, f"liar.{SERVICE_TYPE}", 1, properties=properties, server="l.local.")
            await (await liar.async_register_service(info, cooperating_responders=True))
            await until_sees(one, {THREE})
            await liar.async_close()

    run_real(main())


def test_the_record_of_a_peer_with_many_addresses_is_bounded_and_comes_back() -> None:
    addresses = [f"/ip4/192.0.2.{number}/tcp/4001/p2p/{ONE}" for number in range(100)]
    properties = {key.encode(): value.encode() for key, value in record(RUN, ONE, addresses).items()}
    assert parse_record(properties, RUN) == (ONE, tuple(addresses[:MAX_ANNOUNCED]))


@pytest.mark.parametrize(
    "change",
    [
        {b"run": OTHER_RUN.encode()},
        {b"run": None},
        {b"peer": b"12D3KooWnobody"},
        {b"peer": b"\xff"},
        {b"peer": b"x" * 1000},
        {b"a0": None},
        {b"a0": b"nonsense"},
        {b"a0": f"{ADDRESS}/p2p/{TWO}".encode()},
        {b"a0": b"/ip4/192.0.2.7/tcp/" + b"1" * 1000},
    ],
)
def test_a_malformed_record_is_nobody(change: dict[bytes, bytes | None]) -> None:
    properties = {key.encode(): value.encode() for key, value in record(RUN, ONE, [ADDRESS]).items()}
    assert parse_record(properties, RUN) is not None
    assert parse_record(properties | change, RUN) is None


def test_loopback_is_not_the_local_network() -> None:
    addresses = ["/ip4/127.0.0.1/tcp/1", "/ip6/::1/tcp/1", ADDRESS, "/dns4/example.org/tcp/1"]
    assert lan_addresses(addresses) == (ADDRESS, "/dns4/example.org/tcp/1")


def test_a_name_is_valid_for_dns() -> None:
    label = service_name(RUN, ONE).partition(".")[0]
    assert len(label) <= 63
    assert label.isalnum()
