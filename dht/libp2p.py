"""`Libp2pTransport`: requests and streams over libp2p, one libp2p stream each, by way of p2pd.

The PeerID of the other side is authenticated by libp2p's handshake (TLS 1.3), and must be an Ed25519 one.
While p2pd is being started again, new exchanges wait for it within their own time limits; those under way break.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakSet

from dht.addresses import usable_transports
from dht.clock import SystemClock
from dht.connection import FrameConnection
from dht.control import Control, ControlError, open_stream_request, raise_on_error
from dht.exchange import CONNECT_SECONDS, ExchangeTransport
from dht.hivemind_quietly import p2pd_pb2
from dht.interfaces import OnRejected, Unreachable
from dht.receive_buffers import ReceiveBuffers
from protocols.identity import IdentityError, PeerId, peer_id_from_bytes

log = logging.getLogger(__name__)

PROTOCOL_PREFIX = "/peer/1/"
PREAMBLE_SECONDS = 5.0
MAX_REMEMBERED = 1024
"""Peers whose addresses are kept; of the others p2pd knows what it has seen since it was started."""


class Libp2pTransport(ExchangeTransport):
    """Made by `start`, ended by `close`; p2pd must run in between."""

    def __init__(self, peer_id: PeerId, control: Control, listen_path: Path, on_rejected: OnRejected) -> None:
        super().__init__(peer_id, SystemClock(), on_rejected)
        self._control = control
        self._listen_path = listen_path
        self._connections: WeakSet[FrameConnection] = WeakSet()
        self._buffers = ReceiveBuffers()
        self._server: asyncio.AbstractServer | None = None
        self._running = asyncio.Event()
        """p2pd runs and has our handlers."""
        self._running.set()
        self._addresses: OrderedDict[PeerId, tuple[str, ...]] = OrderedDict()
        self._introduced: set[PeerId] = set()
        """Those whose addresses the running p2pd has been told."""

    @classmethod
    async def start(
        cls, peer_id: PeerId, control: Control, listen_path: Path, on_rejected: OnRejected
    ) -> "Libp2pTransport":
        """`control`: of a running p2pd; `listen_path`: the unix socket for the streams that p2pd hands over."""
        transport = cls(peer_id, control, listen_path, on_rejected)
        loop = asyncio.get_running_loop()
        transport._server = await loop.create_unix_server(transport._accept, path=str(listen_path))
        return transport

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        self._kept.close()
        await self._tasks.close()
        for connection in list(self._connections):
            connection.abort_now()

    def pause(self) -> None:
        """p2pd has ended: until `resume` new exchanges wait."""
        self._running.clear()

    async def resume(self) -> None:
        """p2pd has been started anew, and knows neither our handlers nor anybody's addresses. Raises Unreachable."""
        self._introduced.clear()
        for kind in self._services:
            await self._offer(kind)
        self._running.set()

    async def connect(self, peer: PeerId, addresses: Sequence[str]) -> None:
        transports = usable_transports(peer, addresses)
        if not transports:
            raise Unreachable(f"no usable address of {peer} among {list(addresses)}")
        self.remember(peer, addresses)
        await self._introduce(peer, transports)

    def remember(self, peer: PeerId, addresses: Sequence[str]) -> None:
        if self._addresses.get(peer) == tuple(addresses):
            return
        self._addresses[peer] = tuple(addresses)
        self._addresses.move_to_end(peer)
        self._introduced.discard(peer)
        while len(self._addresses) > MAX_REMEMBERED:
            forgotten, _ = self._addresses.popitem(last=False)
            self._introduced.discard(forgotten)

    async def _introduce(self, peer: PeerId, transports: Sequence[str]) -> None:
        """Tells p2pd where `peer` is; it connects if it has no connection yet. Raises Unreachable."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._control.connect(peer, transports)
        except TimeoutError:
            raise Unreachable(f"cannot connect to {peer}: no answer in {CONNECT_SECONDS:g} seconds") from None
        except ControlError as error:
            raise Unreachable(f"cannot connect to {peer}: {error}") from error
        self._introduced.add(peer)

    async def in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.to_thread(function, *arguments)

    async def _dial(self, peer: PeerId, kind: str) -> FrameConnection:
        await self._running.wait()
        if peer not in self._introduced and (transports := usable_transports(peer, self._addresses.get(peer, ()))):
            await self._introduce(peer, transports)
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_unix_connection(self._connection, str(self._control.path))
        except OSError as error:
            raise Unreachable(f"p2pd does not run: {error}") from error
        self._connections.add(connection)
        try:
            connection.write(open_stream_request(peer, PROTOCOL_PREFIX + kind))
            raise_on_error(p2pd_pb2.Response.FromString(await connection.preamble()))
        except ControlError as error:
            connection.abort()
            self._introduced.discard(peer)  # p2pd forgets some addresses, a relay's above all, with the connection
            raise Unreachable(str(error)) from error
        except BaseException:
            connection.abort()
            raise
        connection.begin_frames()
        return connection

    async def _offer(self, kind: str) -> None:
        try:
            await self._control.hand_over_streams(PROTOCOL_PREFIX + kind, self._listen_path)
        except ControlError as error:
            raise Unreachable(f"p2pd does not take a handler for {kind}: {error}") from error

    def _connection(self) -> FrameConnection:
        return FrameConnection(self._buffers)

    def _accept(self) -> FrameConnection:
        connection = self._connection()
        self._connections.add(connection)
        self._tasks.start(self._serve_stream_of_p2pd(connection), "incoming stream")
        return connection

    async def _serve_stream_of_p2pd(self, connection: FrameConnection) -> None:
        try:
            async with asyncio.timeout(PREAMBLE_SECONDS):
                info = p2pd_pb2.StreamInfo.FromString(await connection.preamble())
            peer = peer_id_from_bytes(info.peer)
            await self._serve_connection(peer, info.proto.removeprefix(PROTOCOL_PREFIX), connection)
        except IdentityError as error:
            log.debug("a stream is refused: %s", error)
            connection.abort()
        except (Unreachable, ControlError, TimeoutError) as error:
            log.debug("an incoming stream broke: %s", error)
            connection.abort()
        except BaseException:
            connection.abort()
            raise

    async def _disconnect(self, peer: PeerId) -> None:
        try:
            await self._control.disconnect(peer)
        except ControlError as error:
            log.debug("cannot disconnect %s: %s", peer, error)
