"""Peers of one run on one local network find each other without options, by multicast DNS (RFC 6762, RFC 6763).

Each announces a service of the type `_peer-run._tcp` whose TXT record holds the run id, its PeerID and its addresses.
Anybody on the network can say anything there: what is found is checked for its form here, and for its truth by
libp2p's handshake when it is dialled.
"""

import asyncio
import ipaddress
import logging
from collections.abc import Mapping, Sequence
from typing import Self

from zeroconf import Error as ZeroconfError
from zeroconf import InterfaceChoice, IPVersion, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from dht.addresses import MAX_ADDRESS_CHARACTERS, usable_transports
from dht.tasks import OwnedTasks
from protocols.encoding import digest, encode
from protocols.identity import IdentityError, PeerId, parse_peer_id

log = logging.getLogger(__name__)

SERVICE_TYPE = "_peer-run._tcp.local."
MAX_ANNOUNCED = 8
"""Addresses in one record, so that it fits in a datagram."""
MAX_PEERS = 256
MAX_QUESTIONS = 16
"""Services that are asked for their record at one time; others are asked when they announce themselves again."""
RESOLVE_MILLISECONDS = 3000
CLOSE_SECONDS = 3.0

Found = tuple[PeerId, tuple[str, ...]]


class LanDiscoveryError(Exception):
    """This machine has no network on which multicast works; the message says why."""


class LanDiscovery:
    """The peers of one run on the local network, as one of them sees them; made by `start`, ended by `close`."""

    def __init__(self, zeroconf: AsyncZeroconf, run: str, peer_id: PeerId) -> None:
        self._zeroconf = zeroconf
        self._run = run
        self._own_name = service_name(run, peer_id)
        self._found: dict[str, Found] = {}
        self._asked: set[str] = set()
        self._tasks = OwnedTasks()
        self._browser: AsyncServiceBrowser | None = None
        self._info: AsyncServiceInfo | None = None

    @classmethod
    async def start(
        cls, run: str, peer_id: PeerId, addresses: Sequence[str], interfaces: Sequence[str] | None = None
    ) -> Self:
        """Announces this peer at `addresses` (none in client mode) and looks for others.

        `interfaces`: IP addresses of those to use, every one unless given. Raises LanDiscoveryError.
        """
        try:
            used = InterfaceChoice.All if interfaces is None else list(interfaces)
            zeroconf = AsyncZeroconf(used, ip_version=IPVersion.V4Only)
        except OSError as error:
            raise LanDiscoveryError(f"no multicast on this network: {error}") from error
        discovery = cls(zeroconf, run, peer_id)
        if addresses:
            discovery._info = AsyncServiceInfo(
                SERVICE_TYPE,
                discovery._own_name,
                port=_port(addresses[0]),
                properties=record(run, peer_id, addresses),
                server=f"{discovery._own_name.partition('.')[0]}.local.",
                parsed_addresses=_hosts(addresses),
            )
            discovery._tasks.start(discovery._announce(discovery._info), "announce on the local network")
        discovery._browser = AsyncServiceBrowser(
            zeroconf.zeroconf, SERVICE_TYPE, handlers=[discovery._on_change], question_type=None
        )
        return discovery

    def others(self) -> list[Found]:
        """The other peers of the run that are announced now, and their multiaddrs."""
        return list(self._found.values())

    async def close(self) -> None:
        """Takes the announcement back."""
        await self._tasks.close()
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                if self._browser is not None:
                    await self._browser.async_cancel()
                await self._zeroconf.async_close()
        except OSError as error:  # it takes too long, or the network is gone
            log.debug("multicast DNS did not end in order: %s", error or "no end in time")

    async def _announce(self, info: AsyncServiceInfo) -> None:
        try:  # nobody else has this name: it is a digest of ours
            await (await self._zeroconf.async_register_service(info, cooperating_responders=True))
        except (ZeroconfError, OSError) as error:
            log.warning("this peer is not announced on the local network: %s", error)

    def _on_change(self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
        if name == self._own_name or service_type != SERVICE_TYPE:
            return
        if state_change is ServiceStateChange.Removed:
            self._found.pop(name, None)
            return
        full = name not in self._found and len(self._found) >= MAX_PEERS
        if not full and name not in self._asked and len(self._asked) < MAX_QUESTIONS:
            self._asked.add(name)
            self._tasks.start(self._resolve(name), "ask on the local network")

    async def _resolve(self, name: str) -> None:
        try:
            info = AsyncServiceInfo(SERVICE_TYPE, name)
            if await info.async_request(self._zeroconf.zeroconf, RESOLVE_MILLISECONDS):
                found = parse_record(info.properties, self._run)
                if found is not None and service_name(self._run, found[0]) == name:
                    self._found[name] = found
        except (ZeroconfError, OSError) as error:
            log.debug("no record of %s: %s", name, error)
        finally:
            self._asked.discard(name)


def lan_addresses(addresses: Sequence[str]) -> tuple[str, ...]:
    """Those of a peer's multiaddrs at which others on the local network may reach it."""
    return tuple(address for address in addresses if not _is_loopback(address))[:MAX_ANNOUNCED]


def service_name(run: str, peer_id: PeerId) -> str:
    return f"{digest(encode([run, peer_id])).hex()[:40]}.{SERVICE_TYPE}"


def record(run: str, peer_id: PeerId, addresses: Sequence[str]) -> dict[str, str]:
    """The TXT record: `run`, `peer`, and the addresses `a0`, `a1`, …, without `/p2p/…`."""
    transports = usable_transports(peer_id, addresses)[:MAX_ANNOUNCED]
    return {"run": run, "peer": peer_id} | {f"a{number}": address for number, address in enumerate(transports)}


def parse_record(properties: Mapping[bytes, bytes | None], run: str) -> Found | None:
    """Who is where, if the record is of that run and well-formed; otherwise None."""
    try:
        texts = {
            key.decode("ascii"): value.decode("ascii")
            for key, value in properties.items()
            if value is not None and len(value) <= MAX_ADDRESS_CHARACTERS
        }
        peer = parse_peer_id(texts["peer"])
    except (UnicodeDecodeError, KeyError, IdentityError):
        return None
    if texts.get("run") != run:
        return None
    addresses = [texts[key] for number in range(MAX_ANNOUNCED) if (key := f"a{number}") in texts]
    transports = usable_transports(peer, addresses)
    return (peer, tuple(f"{transport}/p2p/{peer}" for transport in transports)) if transports else None


def _is_loopback(address: str) -> bool:
    host = _host(address)
    return host is not None and host.is_loopback


def _host(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    parts = address.split("/")
    try:
        return ipaddress.ip_address(parts[2])
    except (IndexError, ValueError):  # a host name
        return None


def _hosts(addresses: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(str(host) for address in addresses if (host := _host(address)) is not None))


def _port(address: str) -> int:
    parts = address.split("/")
    return int(parts[4]) if len(parts) > 4 and parts[4].isdigit() else 0
