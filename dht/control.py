"""Commands to p2pd over its control socket: one short connection each, protobuf messages with a varint length.

(hivemind's own client leaves its connections open when a command fails or is cancelled.)
"""

import asyncio
from collections.abc import Iterable
from pathlib import Path

import base58

from dht.addresses import transport_bytes
from dht.hivemind_quietly import Multiaddr, p2pd_pb2
from protocols.identity import PeerId, peer_id_bytes, peer_id_from_bytes
from protocols.printable import printable

MAX_MESSAGE_BYTES = 1024 * 1024


class ControlError(Exception):
    """p2pd refused a command or has ended; the message is its own."""


class Control:
    """The commands that we use."""

    def __init__(self, path: Path) -> None:
        self.path = path

    async def identify(self) -> tuple[PeerId, tuple[str, ...]]:
        """Our PeerID and the multiaddrs at which p2pd thinks it can be reached, without `/p2p/…`."""
        response = await self._command(p2pd_pb2.Request(type=p2pd_pb2.Request.IDENTIFY))
        addresses = tuple(text for address in response.identify.addrs if (text := _text(address)))
        return peer_id_from_bytes(response.identify.id), addresses

    async def connected_from(self, peer: PeerId) -> tuple[str, ...]:
        """The other end's multiaddr, without `/p2p/…`, of each connection that there is with `peer`."""
        response = await self._command(p2pd_pb2.Request(type=p2pd_pb2.Request.LIST_PEERS))
        wanted = peer_id_bytes(peer)
        found = (_text(address) for other in response.peers if other.id == wanted for address in other.addrs)
        return tuple(text for text in found if text)

    async def connect(self, peer: str, transports: Iterable[str]) -> None:
        """Connects to `peer` (base58 of any PeerID). Raises ControlError when no transport leads to it."""
        request = p2pd_pb2.ConnectRequest(
            peer=base58.b58decode(peer), addrs=[transport_bytes(transport) for transport in transports]
        )
        await self._command(p2pd_pb2.Request(type=p2pd_pb2.Request.CONNECT, connect=request))

    async def disconnect(self, peer: PeerId) -> None:
        request = p2pd_pb2.DisconnectRequest(peer=peer_id_bytes(peer))
        await self._command(p2pd_pb2.Request(type=p2pd_pb2.Request.DISCONNECT, disconnect=request))

    async def hand_over_streams(self, protocol: str, listen_path: Path) -> None:
        """From now on p2pd connects to the unix socket `listen_path` for each incoming stream of `protocol`."""
        request = p2pd_pb2.StreamHandlerRequest(
            addr=Multiaddr(f"/unix{listen_path}").to_bytes(), proto=[protocol], balanced=False
        )
        await self._command(p2pd_pb2.Request(type=p2pd_pb2.Request.STREAM_HANDLER, streamHandler=request))

    async def exchange(self, peer: PeerId, protocol: str, message: bytes) -> bytes:
        """Sends one length-delimited message on a new stream of `protocol`; the answer. Raises ControlError."""
        try:
            reader, writer = await asyncio.open_unix_connection(self.path)
            try:
                writer.write(open_stream_request(peer, protocol))
                raise_on_error(p2pd_pb2.Response.FromString(await _read_delimited(reader)))
                writer.write(delimited(message))
                return await _read_delimited(reader)
            finally:
                writer.close()
        except (OSError, asyncio.IncompleteReadError) as error:
            raise ControlError(f"no answer to {protocol}: {error}") from error

    async def _command(self, request: p2pd_pb2.Request) -> p2pd_pb2.Response:
        try:
            reader, writer = await asyncio.open_unix_connection(self.path)
            try:
                writer.write(delimited(request.SerializeToString()))
                response = p2pd_pb2.Response.FromString(await _read_delimited(reader))
            finally:
                writer.close()
        except (OSError, asyncio.IncompleteReadError) as error:
            raise ControlError(f"p2pd does not answer: {error}") from error
        raise_on_error(response)
        return response


def open_stream_request(peer: PeerId, protocol: str) -> bytes:
    """The command after whose response the control connection carries the new stream."""
    request = p2pd_pb2.StreamOpenRequest(peer=peer_id_bytes(peer), proto=[protocol])
    return delimited(p2pd_pb2.Request(type=p2pd_pb2.Request.STREAM_OPEN, streamOpen=request).SerializeToString())


def raise_on_error(response: p2pd_pb2.Response) -> None:
    if response.type == p2pd_pb2.Response.ERROR:
        raise ControlError(printable(response.error.msg) or "no reason given")


def delimited(message: bytes) -> bytes:
    """`message` after its length as a varint."""
    length = len(message)
    prefix = bytearray()
    while length > 0x7F:
        prefix.append(length & 0x7F | 0x80)
        length >>= 7
    prefix.append(length)
    return bytes(prefix) + message


class DelimitedDecoder:
    """One length-delimited message, byte by byte up to its end and no further; used as `FrameDecoder` is."""

    def __init__(self, max_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._target = memoryview(bytearray(1))
        self._filled = 0
        self._length = 0
        self._shift: int | None = 0

    def buffer(self) -> memoryview:
        return self._target[self._filled :]

    def received(self, count: int) -> bytes | None:
        """The message, when these bytes complete it. Raises ControlError when it is longer than the limit."""
        self._filled += count
        if self._filled < len(self._target):
            return None
        if self._shift is None:
            return bytes(self._target)
        byte = self._target[0]
        self._length |= (byte & 0x7F) << self._shift
        self._shift += 7
        self._filled = 0
        if self._length > self._max_bytes or self._shift > 35:
            raise ControlError(f"p2pd sent a message longer than {self._max_bytes} bytes")
        if byte & 0x80:
            return None
        if not self._length:
            return b""
        self._shift = None
        self._target = memoryview(bytearray(self._length))
        return None


def _text(address: bytes) -> str | None:
    try:
        return str(Multiaddr(address))
    except (ValueError, LookupError):  # a transport that hivemind's parser does not know
        return None


async def _read_delimited(reader: asyncio.StreamReader) -> bytes:
    decoder = DelimitedDecoder()
    while True:
        piece = await reader.readexactly(len(decoder.buffer()))
        decoder.buffer()[:] = piece
        if (message := decoder.received(len(piece))) is not None:
            return message
