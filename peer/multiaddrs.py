"""The form of multiaddrs that a user gives, checked without loading the network libraries.

This finds typing errors early and names them; the network library parses the address again.
"""

import ipaddress
import re

_EXAMPLE = "/ip4/203.0.113.7/tcp/31337"
_EXAMPLE_PEER = f"{_EXAMPLE}/p2p/12D3KooW…"

_HOSTS = ("ip4", "ip6", "dns", "dns4", "dns6")
_TRANSPORTS = ("tcp", "udp")
_UPGRADES = ("quic", "quic-v1", "ws", "wss", "tls", "noise", "p2p-circuit")
_PEER_ID = re.compile(r"(12D3KooW|Qm|16Uiu2)[1-9A-HJ-NP-Za-km-z]{32,50}")
_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?"
_HOST_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(\.{_LABEL})*\.?")


def check_address(text: str) -> str:
    """`text`, when it has the form of an address to listen on or to announce. Raises ValueError."""
    _parse(text, _EXAMPLE)
    return text


def check_peer_address(text: str) -> str:
    """`text`, when it has the form of an address with the PeerID of who is there. Raises ValueError."""
    port, peer_id = _parse(text, _EXAMPLE_PEER)
    if peer_id is None:
        raise ValueError(f"{text!r} does not say which peer is there; it must end in its PeerID, as {_EXAMPLE_PEER}")
    if port == 0:
        raise ValueError(f"{text!r} has port 0, which nobody can connect to; give the port that the peer announces")
    return text


def _parse(text: str, example: str) -> tuple[int, str | None]:
    """The port and the last PeerID of a multiaddr."""
    parts = text.split("/")
    if len(text) > 512 or len(parts) < 5 or parts[0] or parts[1] not in _HOSTS or parts[3] not in _TRANSPORTS:
        raise ValueError(f"{text[:512]!r} is not a multiaddr; it must look like {example}")
    _check_host(parts[1], parts[2], text)
    port = int(parts[4]) if re.fullmatch(r"[0-9]{1,5}", parts[4]) else -1
    if not 0 <= port <= 65535:
        raise ValueError(f"{text!r}: {parts[4]!r} is not a port from 0 to 65535")
    peer_id: str | None = None
    rest = iter(parts[5:])
    for name in rest:
        if name == "p2p":
            peer_id = next(rest, "")
            if not _PEER_ID.fullmatch(peer_id):
                raise ValueError(f"{text!r}: {peer_id!r} is not a PeerID (12D3KooW…)")
        elif name not in _UPGRADES:
            raise ValueError(f"{text!r}: unknown part {name!r}; an address must look like {example}")
    return port, peer_id


def _check_host(kind: str, host: str, text: str) -> None:
    if kind in ("ip4", "ip6"):
        address_type = ipaddress.IPv4Address if kind == "ip4" else ipaddress.IPv6Address
        try:
            address_type(host)
        except ValueError as error:
            raise ValueError(f"{text!r}: {host!r} is not an IPv{kind[2]} address") from error
    elif not _HOST_NAME.fullmatch(host):
        raise ValueError(f"{text!r}: {host!r} is not a host name")
