"""Keeps a node in the DHT for as long as it lives: connects, retries with back-off, and heals a split.

Every address ever given (initial peers, members found later) is looked after. A peer that does not answer is tried
again with exponential back-off and jitter, for ever; one that answers is pinged now and then, and connected again when
it is lost. Each node looks for its own neighbours now and then, so that two DHTs that formed from one list of initial
peers, or were parted, merge as soon as one peer of the one reaches one of the other.
"""

import asyncio
import ipaddress
import logging
import random
from collections.abc import Iterable
from dataclasses import dataclass, field

from dht.addresses import Address, AddressError, parse_address
from dht.border import Border
from dht.control import Control, ControlError
from dht.hivemind_quietly import DHTNode, PeerID
from dht.tasks import OwnedTasks, cancellable
from protocols.backoff import doubled

log = logging.getLogger(__name__)

FIRST_RETRY_SECONDS = 0.25
LAST_RETRY_SECONDS = 30.0
CHECK_SECONDS = 15.0
"""A connected peer is pinged, and the own neighbourhood searched, this often."""
CONNECT_SECONDS = 15.0
PROBE_SECONDS = 5.0
MAX_PEERS = 256
MAX_TRANSPORTS = 16


@dataclass(slots=True)
class _Known:
    """A peer that we look after."""

    peer: str
    transports: list[str]
    permanent: bool
    """Given by the user: never forgotten."""
    failures: int = 0
    connected: bool = False
    retry_now: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class Bootstrap:
    """Made and run by `Node`; one task for each peer that it looks after."""

    def __init__(self, dht: DHTNode, control: Control, own_peer: str, border: Border) -> None:
        self._dht = dht
        self._border = border
        self._control = control
        self._own_peer = own_peer
        self._known: dict[str, _Known] = {}
        self._connected = asyncio.Event()
        self._tasks = OwnedTasks()
        self._tasks.start(self._keep_looking(), "look for neighbours")

    @property
    def connected(self) -> bool:
        """Whether any peer answered at its last ping."""
        return any(known.connected for known in self._known.values())

    async def wait_connected(self, timeout_seconds: float) -> bool:
        """Whether this node has been in one DHT with somebody else, or is within that time."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._connected.wait()
        except TimeoutError:
            return False
        return True

    def add(self, addresses: Iterable[str], *, permanent: bool = False) -> None:
        """Looks after these peers (`…/p2p/12D3KooW…`) too; what is malformed, ourselves or one too many is ignored."""
        for text in addresses:
            try:
                self._add(parse_address(text), permanent=permanent)
            except AddressError as error:
                log.warning("ignoring an address: %s", error)

    def forget(self, peer: str) -> None:
        """Looks no more after a peer that has left; the user's initial peers stay."""
        known = self._known.get(peer)
        if known is not None and not known.permanent:
            del self._known[peer]
            if known.task is not None:
                known.task.cancel()

    def reconnect(self) -> None:
        """All connections are gone: connects anew without waiting for the next check."""
        for known in self._known.values():
            known.connected = False
            known.failures = 0
            known.retry_now.set()

    async def close(self) -> None:
        await self._tasks.close()

    def _add(self, address: Address, *, permanent: bool) -> None:
        if address.peer is None or not address.transport or address.peer == self._own_peer:
            return
        known = self._known.get(address.peer)
        if known is None:
            if len(self._known) >= MAX_PEERS and not permanent:
                return
            known = self._known[address.peer] = _Known(address.peer, [address.transport], permanent)
            known.task = self._tasks.start(self._look_after(known), f"bootstrap {address.peer}")
            return
        known.permanent |= permanent
        if address.transport not in known.transports:
            known.transports.append(address.transport)
            del known.transports[:-MAX_TRANSPORTS]
            if not known.connected:
                known.retry_now.set()

    async def _keep_looking(self) -> None:
        """Makes us known to those who are nearest, and them to us: what one of them has met, all come to know."""
        while True:
            await asyncio.sleep(CHECK_SECONDS * random.uniform(0.75, 1.25))  # noqa: S311
            async with self._border.around("looking for neighbours"):
                await self._dht.find_nearest_nodes([self._dht.node_id])

    async def _look_after(self, known: _Known) -> None:
        while True:
            reached = False
            async with self._border.around(f"bootstrapping from {known.peer}"):
                reached = await self._reach(known)
            known.connected = reached
            if known.connected:
                known.failures = 0
                self._connected.set()
                pause = CHECK_SECONDS * random.uniform(0.75, 1.25)  # noqa: S311
            else:
                pause = doubled(FIRST_RETRY_SECONDS, known.failures, LAST_RETRY_SECONDS)
                pause *= random.uniform(0.5, 1.0)  # noqa: S311
                known.failures = min(known.failures + 1, 16)
            await self._pause(known, pause)

    async def _pause(self, known: _Known, seconds: float) -> None:
        known.retry_now.clear()
        try:
            async with asyncio.timeout(seconds):
                await known.retry_now.wait()
        except TimeoutError:
            return

    async def _reach(self, known: _Known) -> bool:
        """Whether the peer answers a ping, after connecting where needed; a newly reached one shows us the others."""
        peer = PeerID.from_base58(known.peer)
        near = known.connected or peer in self._dht.protocol.routing_table
        reached = near and await self._answers(peer)
        if not reached:
            reached = await self._connect(known) and await self._answers(peer)
        if reached:
            self._dht.blacklist.register_success(peer)
        if reached and not known.connected:
            await self._dht.find_nearest_nodes([self._dht.node_id])
        elif known.connected and not reached:
            log.info("lost %s, trying to connect again", known.peer)
        return reached

    async def _answers(self, peer: PeerID) -> bool:
        return await cancellable(self._dht.protocol.call_ping(peer)) is not None

    async def _connect(self, known: _Known) -> bool:
        transports = [transport for transport in known.transports if await _may_answer(transport)]
        if not transports:
            return False
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._control.connect(known.peer, transports)
        except (ControlError, TimeoutError) as error:
            log.debug("cannot connect to %s: %s", known.peer, error or "no answer")
            return False
        return True


async def _may_answer(transport: str) -> bool:
    """Whether anybody listens at a TCP address; others are for p2pd to try.

    p2pd itself refuses to dial an address again for seconds, and later for minutes, after a failure; so it is asked
    only when there is somebody to answer.
    """
    parts = transport.split("/")
    if len(parts) != 5 or parts[1] not in ("ip4", "ip6", "dns", "dns4", "dns6") or parts[3] != "tcp":
        return True
    if parts[1].startswith("ip") and ipaddress.ip_address(parts[2]).is_unspecified:
        return False
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            _, writer = await asyncio.open_connection(parts[2], int(parts[4]))
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
