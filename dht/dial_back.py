"""Whether others can connect to a peer: it asks one of them to dial it back, as libp2p's AutoNAT does for itself.

Whoever asks must not get us to dial anybody else:

- The host is never taken from the request: it is where the asker's own connection comes from, which a completed
  handshake has proved. A connection through a relay tells of no host, and is refused.
- Of the request we take a few port numbers, and the answer names those at which a libp2p node greets us.
- We connect and listen; nothing is sent. The connection is a plain one from a new port, so that no router takes it for
  the answer to the asker's own connection.
- A host is dialled once in PAUSE_SECONDS, whoever asks from there, and few of them at once.
"""

import asyncio
import ipaddress
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from dht.interfaces import Clock, Transport
from dht.node import Node
from protocols.encoding import EncodingError, decode, encode
from protocols.identity import PeerId
from protocols.rejection import Reason, Rejected

DIAL_BACK_KIND = "dial-back"
MAX_PORTS = 4
DIAL_SECONDS = 5.0
ANSWER_SECONDS = DIAL_SECONDS + 5.0
PAUSE_SECONDS = 10.0
MAX_HOSTS = 256
"""So many may be dialled within PAUSE_SECONDS."""
GREETING = b"\x13/multistream/1.0.0\n"
"""With which every libp2p node begins, before it has heard anything."""
MAX_BYTES = 256
"""Of a request and of an answer."""

Host = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class DialledBack:
    """What came of it."""

    host: str
    """The IP address from which our connections come, as the other side sees them."""
    reached: tuple[int, ...]
    """The ports there at which a libp2p node answers."""


async def serve_dial_back(node: Node) -> None:
    """From now on others can ask `node` to dial them back."""
    service = DialBack(node.connected_from, node.transport.clock)
    await node.transport.serve_requests(DIAL_BACK_KIND, service.answer, MAX_BYTES)


async def ask_to_dial_back(transport: Transport, peer: PeerId, ports: Sequence[int]) -> DialledBack:
    """Asks `peer` to connect to these ports (MAX_PORTS at most) of the host that our connection to it comes from.

    Raises Unreachable, TimedOut, Refused (busy, unexpected), Rejected (malformed).
    """
    answer = await transport.request(peer, DIAL_BACK_KIND, encode(list(ports)), ANSWER_SECONDS)
    try:
        host, reached = decode(answer, MAX_BYTES)
        return DialledBack(str(ipaddress.ip_address(host)), tuple(port for port in ports if port in reached))
    except (EncodingError, TypeError, ValueError) as error:
        raise Rejected(Reason.MALFORMED, f"{peer} does not say where it has dialled us") from error


class DialBack:
    """The service."""

    def __init__(self, connected_from: Callable[[PeerId], Awaitable[Sequence[str]]], clock: Clock) -> None:
        """`connected_from`: the multiaddrs from which a peer is connected to us."""
        self._connected_from, self._clock = connected_from, clock
        self._dialled_at: OrderedDict[str, float] = OrderedDict()

    async def answer(self, peer: PeerId, body: bytes) -> bytes:
        """Raises Rejected: malformed, unexpected (connected through a relay), busy."""
        ports = _parse_ports(body)
        hosts = map(direct_host, await self._connected_from(peer))
        host: Host | None = next((host for host in hosts if host is not None), None)
        if host is None:
            raise Rejected(Reason.UNEXPECTED, "you are not connected directly: there is no host to dial")
        self._admit(host)
        greeted = await asyncio.gather(*(_is_greeted(str(host), port) for port in ports))
        return encode([str(host), [port for port, there in zip(ports, greeted, strict=True) if there]])

    def _admit(self, host: Host) -> None:
        now = self._clock.monotonic()
        while self._dialled_at and next(iter(self._dialled_at.values())) <= now - PAUSE_SECONDS:
            self._dialled_at.popitem(last=False)
        if _household(host) in self._dialled_at or len(self._dialled_at) >= MAX_HOSTS:
            raise Rejected(Reason.BUSY, f"ask again in {PAUSE_SECONDS:.0f} s")
        self._dialled_at[_household(host)] = now


def direct_host(address: str) -> Host | None:
    """The IP address of a multiaddr that leads there without a relay."""
    _, kind, host, *rest = [*address.split("/"), "", ""]
    if kind not in ("ip4", "ip6") or "p2p-circuit" in rest:
        return None
    return ipaddress.ip_address(host)


def _household(host: Host) -> str:
    """Who counts as one: an IPv6 network has more addresses than anybody can be made to wait for."""
    return str(host) if host.version == 4 else str(ipaddress.ip_network((host, 64), strict=False))


def _parse_ports(body: bytes) -> list[int]:
    try:
        ports = decode(body, MAX_BYTES)
    except EncodingError as error:
        raise Rejected(Reason.MALFORMED, "not a list of ports") from error
    if not isinstance(ports, list) or not 1 <= len(ports) <= MAX_PORTS:
        raise Rejected(Reason.MALFORMED, f"not a list of 1 to {MAX_PORTS} ports")
    if not all(type(port) is int and 0 < port < 65536 for port in ports):
        raise Rejected(Reason.MALFORMED, "not a port")
    return ports


async def _is_greeted(host: str, port: int) -> bool:
    writer = None
    try:
        async with asyncio.timeout(DIAL_SECONDS):
            reader, writer = await asyncio.open_connection(host, port)
            return await reader.readexactly(len(GREETING)) == GREETING
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return False
    finally:
        if writer is not None:
            with suppress(OSError):
                writer.transport.abort()
