"""`Node`: one libp2p node and one DHT node in our own event loop; what a daemon needs of the network.

hivemind's `P2P` and `DHTNode` run here without its processes and forks. p2pd is started by us without initial peers, so
that it comes up whether or not anybody else is there; `dht.bootstrap` connects it. Should p2pd end, it is started again
under the same identity and at the same ports, and gets its handlers and connections back; who uses the node's transport
and records sees exchanges break and others take longer.
"""

import asyncio
import logging
import random
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path

from dht.addresses import full_address, through_relay, with_ports
from dht.bootstrap import Bootstrap
from dht.border import Border
from dht.control import Control, ControlError
from dht.hivemind_p2p import AttachedP2P
from dht.hivemind_quietly import DHTID, DHTNode
from dht.interfaces import OnRejected, Unreachable
from dht.libp2p import Libp2pTransport
from dht.p2pd import P2pd, P2pdError
from dht.record_storage import guard
from dht.record_validator import OnRecordRefused, RecordValidator
from dht.records import DhtRecords
from dht.relay_limit import start_until_unlimited
from dht.tasks import OwnedTasks
from protocols.identity import PeerId, peer_id_bytes

log = logging.getLogger(__name__)

DEFAULT_LISTEN = "/ip4/0.0.0.0/tcp/0"
RPC_SECONDS = 3.0
FIRST_RESTART_SECONDS = 0.25
LAST_RESTART_SECONDS = 30.0
ADDRESS_SECONDS = 10.0
"""Addresses are asked for so often; p2pd itself looks at the interfaces every 5 seconds."""
STEADY_SECONDS = 60.0
"""A p2pd that ran for so long is started again at once."""


def count_nothing(_peer: PeerId, reason: str, message: str) -> None:
    """The `OnRejected` of who does not count."""
    log.debug("refused (%s): %s", reason, message)


def count_no_record(reason: str, message: str) -> None:
    """The `OnRecordRefused` of who does not count."""
    log.debug("record refused (%s): %s", reason, message)


class Node:
    """Made by `start`, ended by `close`."""

    def __init__(
        self,
        *,
        p2pd: P2pd,
        p2p: AttachedP2P,
        listen: Sequence[str],
        relays: Sequence[str],
        control: Control,
        transport: Libp2pTransport,
        dht: DHTNode,
        records: DhtRecords,
        bootstrap: Bootstrap,
        serve_relay: bool,
        border: Border,
    ) -> None:
        self.peer_id = transport.peer_id
        self.transport = transport
        self.dht = dht
        self.records = records
        self.bootstrap = bootstrap
        self.p2pd = p2pd
        self._p2p = p2p
        self._listen = tuple(listen)
        self._circuits = tuple(through_relay(relay) for relay in relays)
        self._control = control
        self._serve_relay = serve_relay
        self._border = border
        self._tasks = OwnedTasks()
        self._resources = AsyncExitStack()
        self._transports: tuple[str, ...] = ()
        self._addresses: tuple[str, ...] = ()
        self._moved = asyncio.Event()

    @classmethod
    async def start(
        cls,
        identity_path: Path,
        *,
        initial_peers: Sequence[str] = (),
        listen: Sequence[str] = (DEFAULT_LISTEN,),
        announce: Sequence[str] = (),
        client_mode: bool = False,
        relays: Sequence[str] = (),
        serve_relay: bool = False,
        run: str | None = None,
        on_rejected: OnRejected = count_nothing,
        on_record_refused: OnRecordRefused = count_no_record,
    ) -> "Node":
        """Starts p2pd and the DHT node. Whatever fails or is cancelled half-way leaves nothing behind.

        `identity_path`: the private key as `Identity.to_libp2p` writes it. `initial_peers`: multiaddrs with
        `/p2p/…`; they need not answer yet (`bootstrap.wait_connected` says when one does). `announce`: multiaddrs
        to tell others instead of those of this machine's interfaces. `client_mode`: takes no incoming connections,
        but through `relays` (multiaddrs with `/p2p/…` of nodes with `serve_relay`). `run`: the one that we are in, if
        any: its records are kept here before those of others.
        Raises P2pdError.
        """
        async with AsyncExitStack() as resources:
            p2pd = await P2pd.start(
                identity_path, listen, announce, client_mode=client_mode, relays=relays, serve_relay=serve_relay
            )
            resources.push_async_callback(p2pd.close)
            control = Control(p2pd.control_path)
            try:
                peer_id, _ = await control.identify()
            except ControlError as error:
                raise P2pdError(f"p2pd ended at once: {error}") from error
            if serve_relay:
                await start_until_unlimited(p2pd, control, listen)
            transport = await Libp2pTransport.start(peer_id, control, p2pd.listen_path, on_rejected)
            resources.push_async_callback(transport.close)
            p2p = await AttachedP2P.attach(p2pd)
            resources.push_async_callback(p2p.detach)
            validator = RecordValidator(transport.clock, on_record_refused, asyncio.get_running_loop().call_soon)
            dht = await DHTNode.create(
                p2p,
                node_id=DHTID.generate(peer_id_bytes(peer_id)),
                wait_timeout=RPC_SECONDS,
                cache_locally=False,
                cache_on_store=False,
                cache_nearest=0,
                client_mode=client_mode,
                record_validator=validator,
            )
            guard(dht.protocol, validator, run)
            records = DhtRecords(dht, validator, client_mode=client_mode)
            border = Border(peer_id, transport.clock, on_rejected)
            bootstrap = Bootstrap(dht, control, peer_id, border)
            resources.push_async_callback(bootstrap.close)
            node = cls(
                p2pd=p2pd,
                p2p=p2p,
                listen=listen,
                relays=relays,
                control=control,
                transport=transport,
                dht=dht,
                records=records,
                bootstrap=bootstrap,
                serve_relay=serve_relay,
                border=border,
            )
            await node.refresh_addresses()
            node._moved.clear()
            resources.push_async_callback(node._tasks.close)
            node._tasks.start(node._keep_p2pd(), "keep p2pd")
            node._tasks.start(node._keep_addresses(), "keep addresses")
            bootstrap.add(initial_peers, permanent=True)
            node._resources = resources.pop_all()
        return node

    def addresses(self) -> tuple[str, ...]:
        """The multiaddrs, with `/p2p/…`, at which others can reach this node; in client mode those through relays."""
        return self._addresses

    async def refresh_addresses(self) -> tuple[str, ...]:
        """Asks p2pd again: the machine may have moved, or its router opened a port."""
        with suppress(ControlError):
            _, self._transports = await self._control.identify()
            found = dict.fromkeys([*self._transports, *self._circuits])  # p2pd tells of public relays only
            addresses = tuple(full_address(transport, self.peer_id) for transport in found)
            if set(addresses) != set(self._addresses):
                self._addresses = addresses
                self._moved.set()
        return self._addresses

    async def connected_from(self, peer: PeerId) -> tuple[str, ...]:
        """Where `peer` is, as the connections with it show, whatever it says of itself; empty when there are none."""
        try:
            return await self._control.connected_from(peer)
        except ControlError:
            return ()

    async def moved(self) -> None:
        """Returns when `addresses` have changed since the start, or since this returned last; for one waiter."""
        await self._moved.wait()
        self._moved.clear()

    async def close(self) -> None:
        """Ends everything that `start` began; p2pd is gone when this returns."""
        await self._resources.aclose()

    async def _keep_addresses(self) -> None:
        while True:
            await asyncio.sleep(ADDRESS_SECONDS)
            async with self._border.around("looking whether the machine has moved"):
                before = set(self._addresses)
                if set(await self.refresh_addresses()) != before:
                    log.info("reachable at other addresses: %s", ", ".join(self._addresses) or "none")
                    self.bootstrap.reconnect()

    async def _keep_p2pd(self) -> None:
        """Starts p2pd again whenever it ends; after a second end in a short time only after a pause."""
        clock = self.transport.clock
        pause = 0.0
        while True:
            started = clock.monotonic()
            await self.p2pd.ended()
            if clock.monotonic() - started > STEADY_SECONDS:
                pause = 0.0
            log.warning("p2pd has ended unexpectedly; starting it again in %.1f s", pause)
            self.transport.pause()
            async with self._border.around("starting p2pd again"):
                await self._p2p.pause()
                await asyncio.sleep(pause)
                try:
                    await self._start_again()
                except (P2pdError, Unreachable) as error:
                    log.warning("p2pd could not be started again: %s", error)
            pause = min(LAST_RESTART_SECONDS, max(FIRST_RESTART_SECONDS, 2 * pause)) * random.uniform(0.75, 1.0)  # noqa: S311

    async def _start_again(self) -> None:
        self._listen = tuple(with_ports(self._listen, self._transports))
        await self.p2pd.run(self._listen)
        try:
            if self._serve_relay:
                await start_until_unlimited(self.p2pd, self._control, self._listen)
            await self._p2p.attach_again()
            await self.transport.resume()
            await self.refresh_addresses()
        except BaseException:  # it runs, and is of no use: its end lets the next one be started
            self.transport.pause()
            await self.p2pd.stop()
            raise
        self.bootstrap.reconnect()
        log.info("p2pd runs again, at %s", ", ".join(self._addresses) or "no address")
