"""The form of multiaddrs that a user gives, checked without loading the network libraries.

This finds typing errors early and names them; the network library parses the address again.
"""

import ipaddress
import re

import base58

_EXAMPLE = "/ip4/203.0.113.7/tcp/31337"
_EXAMPLE_PEER = f"{_EXAMPLE}/p2p/12D3KooW…"

_HOSTS = ("ip4", "ip6", "dns", "dns4", "dns6")
_STACKS = (("tcp",), ("tcp", "ws"), ("udp", "quic-v1"))
"""The transports that p2pd has, as the names that stand after the host and beside the port."""
_DIAL_ONLY = (("tcp", "wss"),)
"""Those that it can dial but not listen on: it has no certificate."""
_IDENTITY, _SHA2_256 = 0x00, 0x12
"""The multihashes of which PeerIDs are made: of a short key, which is its own hash, or of a long one."""
_ED25519_KEY, _SECP256K1_KEY = b"\x08\x01\x12\x20", b"\x08\x02\x12\x21"
"""How libp2p's `PublicKey` of 32 or 33 bytes begins."""
_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?"
_HOST_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(\.{_LABEL})*\.?")


def check_listen_address(text: str) -> str:
    """`text`, when it has the form of an address that p2pd can listen on. Raises ValueError."""
    _, transport, peer_id = _parse(text, _EXAMPLE)
    if peer_id is not None:
        raise ValueError(f"{text!r} names a peer; where to listen is like {_EXAMPLE}")
    if transport in _DIAL_ONLY:
        raise ValueError(
            f"{text!r}: {_names(transport)} needs a certificate; listen on {_names(('tcp', 'ws'))} instead"
        )
    return text


def check_address(text: str) -> str:
    """`text`, when it has the form of an address to announce. Raises ValueError."""
    _parse(text, _EXAMPLE)
    return text


def check_peer_address(text: str) -> str:
    """`text`, when it has the form of an address with the PeerID of who is there. Raises ValueError."""
    port, _, peer_id = _parse(text, _EXAMPLE_PEER)
    if peer_id is None:
        raise ValueError(f"{text!r} does not say which peer is there; it must end in its PeerID, as {_EXAMPLE_PEER}")
    if port == 0:
        raise ValueError(f"{text!r} has port 0, which nobody can connect to; give the port that the peer announces")
    return text


def _parse(text: str, example: str) -> tuple[int, tuple[str, ...], str | None]:
    """The port, the transport and the last PeerID of a multiaddr."""
    parts = text.split("/")
    if len(text) > 512 or len(parts) < 5 or parts[0] or parts[1] not in _HOSTS:
        raise ValueError(f"{text[:512]!r} is not a multiaddr; it must look like {example}")
    _check_host(parts[1], parts[2], text)
    port = int(parts[4]) if re.fullmatch(r"[0-9]{1,5}", parts[4]) else -1
    if not 0 <= port <= 65535:
        raise ValueError(f"{text!r}: {parts[4]!r} is not a port from 0 to 65535")
    rest = parts[5:]
    end = next((place for place, name in enumerate(rest) if name in ("p2p", "p2p-circuit")), len(rest))
    transport = (parts[3], *rest[:end])
    if transport not in (*_STACKS, *_DIAL_ONLY):
        known = ", ".join(map(_names, _STACKS))
        raise ValueError(f"{text!r}: there is no transport {_names(transport)} here; there are {known}")
    return port, transport, _check_peers(rest[end:], text, example)


def _check_peers(parts: list[str], text: str, example: str) -> str | None:
    """The last PeerID of what follows the transport: of the peer itself, or of a relay before it."""
    peer_id: str | None = None
    rest = iter(parts)
    for name in rest:
        if name == "p2p":
            peer_id = next(rest, "")
            if not is_peer_id(peer_id):
                raise ValueError(
                    f"{text!r}: {peer_id!r} is not a PeerID (12D3KooW…); copy it whole from `peer id` there"
                )
        elif name != "p2p-circuit":
            raise ValueError(f"{text!r}: unknown part {name!r}; an address must look like {example}")
    return peer_id


def is_peer_id(text: str) -> bool:
    """Whether `text` is the base58 of a multihash that can be a PeerID; a plain hivemind node has an RSA one.

    A PeerID carries no check sum: a wrong character is noticed where the length or the kind of key comes out wrong.
    """
    try:
        multihash = base58.b58decode(text) if 0 < len(text) <= 64 else b""  # base58 takes quadratic time
    except ValueError:
        return False
    if len(multihash) < 2 or multihash[1] != len(multihash) - 2:
        return False
    if multihash[0] == _SHA2_256:
        return multihash[1] == 32
    return multihash[0] == _IDENTITY and multihash[2:].startswith((_ED25519_KEY, _SECP256K1_KEY))


def _names(transport: tuple[str, ...]) -> str:
    """`tcp/PORT/ws`."""
    first, *upgrades = transport
    return "/".join([first, "PORT", *upgrades])


def _check_host(kind: str, host: str, text: str) -> None:
    if kind in ("ip4", "ip6"):
        address_type = ipaddress.IPv4Address if kind == "ip4" else ipaddress.IPv6Address
        try:
            address_type(host)
        except ValueError as error:
            raise ValueError(f"{text!r}: {host!r} is not an IPv{kind[2]} address") from error
    elif not _HOST_NAME.fullmatch(host):
        raise ValueError(f"{text!r}: {host!r} is not a host name")
