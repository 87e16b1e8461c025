"""Multiaddrs from users, records and files are checked before p2pd sees them."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dht.addresses import AddressError, parse_address, parse_peer_address, transport_bytes, usable_transports
from tests.dht.worlds import identity

ONE, TWO = identity(1).peer_id, identity(2).peer_id
RSA = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"


@pytest.mark.parametrize("transport", ["/ip4/127.0.0.1/tcp/1", "/ip6/::1/tcp/1", "/dns4/example.org/tcp/4001"])
@pytest.mark.parametrize("peer", [ONE, RSA])
def test_where_and_who(transport: str, peer: str) -> None:
    assert parse_peer_address(f"{transport}/p2p/{peer}") == (peer, transport)
    assert str(parse_address(f"{transport}/p2p/{peer}")) == f"{transport}/p2p/{peer}"


def test_relay_circuit_keeps_its_relay() -> None:
    relayed = f"/ip4/1.2.3.4/tcp/1/p2p/{ONE}/p2p-circuit"
    assert parse_peer_address(f"{relayed}/p2p/{TWO}") == (TWO, relayed)
    assert parse_address(relayed).peer is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "/",
        "/ip4/300.0.0.1/tcp/1",
        "/ip4/10/tcp/1",
        "/ip4/1.2.3.4/tcp/99999",
        "/p2p/not-a-peer",
        "x" * 999,
        "/unix/etc/passwd",
        "/p2p-circuit",
        f"/p2p/{TWO}/p2p-circuit",
        f"/ip4/1.2.3.4/tcp/1/p2p/{TWO}/p2p-circuit/ip4/1.2.3.4/tcp/1/p2p/{ONE}",
        f"/ip4/1.2.3.4/tcp/1/p2p/{TWO}/tcp/1",
        f"/dns4/{'a' * 64}/tcp/1",
        "/dns4/a..b/tcp/1",
        "/dns4/a\nb/tcp/1",
        "/dns4//tcp/1",
    ],
)
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(AddressError):
        parse_address(text)


@pytest.mark.parametrize("text", ["/ip4/1.2.3.4/tcp/1", f"/p2p/{ONE}"])
def test_half_an_address_is_refused_where_both_halves_are_needed(text: str) -> None:
    with pytest.raises(AddressError, match="where or who"):
        parse_peer_address(text)


def test_somebody_elses_addresses_are_not_usable() -> None:
    addresses = ["junk", f"/ip4/1.1.1.1/tcp/1/p2p/{TWO}", f"/ip4/2.2.2.2/tcp/2/p2p/{ONE}", "/ip4/3.3.3.3/tcp/3"]
    assert usable_transports(ONE, addresses) == ["/ip4/2.2.2.2/tcp/2", "/ip4/3.3.3.3/tcp/3"]


_PIECES = st.sampled_from(
    ["ip4", "ip6", "dns4", "p2p", "p2p-circuit", "tcp", "unix", "ws", "1.2.3.4", "::1", "a.b", "1", "9999999", "", ONE]
)
_ADDRESS_LIKE = st.lists(_PIECES | st.text(max_size=4), max_size=10).map(lambda pieces: "/" + "/".join(pieces))


@given(st.text(max_size=60) | st.text(alphabet="/ip4dnscu0123.:x", max_size=60) | _ADDRESS_LIKE)
def test_any_text_can_be_encoded_or_is_refused(text: str) -> None:
    for transport in usable_transports(ONE, [text]):
        assert transport_bytes(transport)
        transport.split("/")[2].encode("idna")
    with suppress(AddressError):
        parse_address(text)
    with suppress(AddressError):
        transport_bytes(text)
