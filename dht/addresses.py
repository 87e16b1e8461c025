"""Multiaddrs of peers: `/ip4/…/tcp/…/p2p/12D3KooW…`, checked before they reach p2pd.

Anybody can send any text as an address. What passes here is sure to have a binary form and a host that can be looked
up, so that nobody who uses an address later meets an error that is about its form.
"""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

import base58

from dht.hivemind_quietly import Multiaddr
from protocols.identity import PeerId

MAX_ADDRESS_CHARACTERS = 256
_CIRCUIT = "/p2p-circuit"
_IP = ("ip4", "ip6")
_NAMES = ("dns", "dns4", "dns6", "dnsaddr")
_HOST_NAME = re.compile(rb"[\w-]{1,63}(\.[\w-]{1,63})*\.?")
_PARSER_ERRORS = (ValueError, LookupError, TypeError)
"""The kinds of error that hivemind's parser and base58 raise."""
_P2P_CODE = b"\xa5\x03"
"""421 as a varint: multiaddr's code of `p2p`."""


class AddressError(ValueError):
    """Not a multiaddr that we can use."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where (`transport`, without `/p2p/…`) and who (None where the multiaddr does not say)."""

    transport: str
    peer: str | None
    """Base58 of any kind of PeerID: a plain hivemind node has an RSA one."""

    def __str__(self) -> str:
        return full_address(self.transport, self.peer) if self.peer else self.transport


def full_address(transport: str, peer: str) -> str:
    return f"{transport}/p2p/{peer}"


def parse_address(text: str) -> Address:
    """Raises AddressError."""
    if len(text) > MAX_ADDRESS_CHARACTERS:
        raise AddressError(f"a multiaddr of {len(text)} characters is too long; {MAX_ADDRESS_CHARACTERS} are allowed")
    if not text or not text.isprintable():
        raise AddressError(f"{text!a} is empty or has characters that cannot be printed")
    transport, separator, peer = text.rpartition("/p2p/")
    if not separator or "/" in peer:  # a relay circuit names the relay last
        transport, peer = text, ""
    try:
        Multiaddr(text)  # its parser checks the PeerID as well
        if transport:
            _check_host(transport)
            _encode(transport)
    except _PARSER_ERRORS as error:
        raise AddressError(f"{text!r} is not a multiaddr like /ip4/203.0.113.1/tcp/4001/p2p/12D3KooW…") from error
    return Address(transport, peer or None)


def parse_peer_address(text: str) -> tuple[str, str]:
    """(who, where) of a multiaddr that must say both. Raises AddressError."""
    address = parse_address(text)
    if address.peer is None or not address.transport:
        raise AddressError(f"{text!r} lacks where or who; it should be like /ip4/203.0.113.1/tcp/4001/p2p/12D3KooW…")
    return address.peer, address.transport


def usable_transports(peer: PeerId, addresses: Iterable[str]) -> list[str]:
    """The transport parts of those `addresses` that are well-formed and do not name somebody else."""
    transports = []
    for text in addresses:
        try:
            address = parse_address(text)
        except AddressError:
            continue
        if address.transport and address.peer in (None, peer):
            transports.append(address.transport)
    return transports


def through_relay(relay: str) -> str:
    """Where a peer is that `relay` (a multiaddr with `/p2p/…`) passes connections on to."""
    return f"{relay}{_CIRCUIT}"


def transport_bytes(transport: str) -> bytes:
    """The binary form, as p2pd takes it. Raises AddressError for what `parse_address` would have refused."""
    try:
        return _encode(transport)
    except _PARSER_ERRORS as error:
        raise AddressError(f"{transport!r} has no binary form") from error


def _encode(transport: str) -> bytes:
    """Raises _PARSER_ERRORS.

    hivemind's encoder writes the PeerID of a relay as a CID, where libp2p wants the bare multihash.
    """
    where, circuit, relay = transport.removesuffix(_CIRCUIT).partition("/p2p/")
    if not circuit:
        return bytes(Multiaddr(transport).to_bytes())
    peer = base58.b58decode(relay)
    end = Multiaddr(_CIRCUIT).to_bytes() if transport.endswith(_CIRCUIT) else b""
    return bytes(Multiaddr(where).to_bytes() + _P2P_CODE + bytes([len(peer)]) + peer + end)


def _check_host(transport: str) -> None:
    """Raises ValueError unless it begins with an IP address or a host name that can be asked for."""
    _, kind, host, *_ = [*transport.split("/"), "", ""]
    if kind in _IP:
        ipaddress.ip_address(host)
    elif kind not in _NAMES or not _HOST_NAME.fullmatch(host.encode("idna")):
        raise ValueError(f"{host!r} is no host")


def on_this_machine(listen: Iterable[str]) -> list[str]:
    """Where a program on this machine reaches who listens there, as far as the ports are given."""
    loopback = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound
    specs = [spec.split("/") for spec in listen]
    return ["/".join([*spec[:2], loopback.get(spec[2], spec[2]), *spec[3:]]) for spec in specs if spec[4:5] != ["0"]]


def with_ports(listen: Iterable[str], actual: Iterable[str]) -> list[str]:
    """`listen` with the ports that were found for those left open (port 0), where `actual` addresses tell them."""
    return [_with_port(spec.split("/"), [address.split("/") for address in actual]) for spec in listen]


def _with_port(spec: list[str], actual: list[list[str]]) -> str:
    if len(spec) >= 5 and spec[4] == "0":
        same_kind = [parts for parts in actual if [parts[1], *parts[3:4], *parts[5:]] == [spec[1], spec[3], *spec[5:]]]
        everywhere = spec[2] in ("0.0.0.0", "::")  # noqa: S104 - compared, not bound
        hosts = ("127.0.0.1", "::1") if everywhere else (spec[2],)
        candidates = [parts for parts in same_kind if parts[2] in hosts] or (same_kind if everywhere else [])
        if candidates:
            spec[4] = candidates[0][4]
    return "/".join(spec)
