"""Raw bytes from a real libp2p peer that does not speak our protocol: the node lives, counts, and serves on."""

import asyncio
import random
import struct
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hivemind.proto import crypto_pb2

from dht.framing import END_OF_STREAM_BYTES
from dht.hivemind_p2p import AttachedP2P
from dht.hivemind_quietly import P2P, P2PDaemonError, P2PHandlerError, PeerID
from dht.interfaces import MAX_PAYLOAD_BYTES, MAX_REQUEST_BYTES, Stream
from dht.node import Node
from dht.p2pd import P2pd
from protocols.identity import PeerId
from protocols.rejection import Reason
from tests.dht.worlds import LOOPBACK, identity, identity_file, run_real, running_node

REQUEST, STREAM = "/peer/1/echo", "/peer/1/collect"


@dataclass
class Victim:
    node: Node
    refused: Counter[str] = field(default_factory=Counter)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def peer(self) -> PeerID:
        return PeerID.from_base58(self.node.peer_id)

    async def until_refused(self, reason: str, count: int) -> None:
        async with asyncio.timeout(20):
            while self.refused[reason] < count:
                self.changed.clear()
                await self.changed.wait()


@asynccontextmanager
async def victim_and_attacker(directory: Path) -> AsyncIterator[tuple[Victim, P2P, Node]]:
    """A node that serves, a raw libp2p client with an identity of our kind, and an honest node."""
    seen: list[Victim] = []

    def on_rejected(_peer: PeerId, reason: str, _message: str) -> None:
        seen[0].refused[reason] += 1
        seen[0].changed.set()

    async def echo(_peer: PeerId, body: bytes) -> bytes:
        return body

    async def collect(stream: Stream) -> None:
        while await stream.receive() is not None:
            pass

    async with (
        running_node(directory, identity(1), on_rejected=on_rejected) as node,
        running_node(directory, identity(2)) as honest,
    ):
        victim = Victim(node)
        seen.append(victim)
        await node.transport.serve_requests("echo", echo)
        await node.transport.serve_streams("collect", collect)
        await honest.transport.connect(node.peer_id, node.addresses())
        p2pd = await P2pd.start(identity_file(directory, identity(66)), [LOOPBACK], [], client_mode=False)
        try:
            attacker = await AttachedP2P.attach(p2pd)
            await node.transport.connect(
                identity(66).peer_id, [str(address) for address in await attacker.get_visible_maddrs()]
            )
            yield victim, attacker, honest
            assert await honest.transport.request(node.peer_id, "echo", b"still there", 10) == b"still there"
            await attacker.detach()
        finally:
            await p2pd.close()


async def send_raw(
    attacker: P2P, victim: Victim, protocol: str, data: bytes, *, wait_for_answer: bool = False
) -> bytes:
    """Sends `data` as it is and cuts the stream, at once or when the other side does; what has come back."""
    _, reader, writer = await attacker.call_binary_stream_handler(victim.peer, protocol)
    writer.write(data)
    try:
        await writer.drain()
        if not wait_for_answer:
            writer.write_eof()
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


def prefix(header: int, payload: int) -> bytes:
    return struct.pack(">II", header, payload)


@pytest.mark.parametrize("protocol", [REQUEST, STREAM])
def test_random_bytes(protocol: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with victim_and_attacker(tmp_path) as (victim, attacker, _):
            source = random.Random(1)
            for number in range(25):
                _, _, writer = await attacker.call_binary_stream_handler(victim.peer, protocol)
                writer.write(source.randbytes(source.randrange(9, 2000)))  # each announces more than is allowed
                await victim.until_refused(Reason.OVERSIZED, number + 1)  # cut sooner, a stream may lose it
                writer.close()
            assert victim.refused == {Reason.OVERSIZED: 25}

    run_real(main())


def test_truncated_frames_are_a_break(tmp_path: Path) -> None:
    async def main() -> None:
        async with victim_and_attacker(tmp_path) as (victim, attacker, _):
            for data in (b"", prefix(0, 10)[:5], prefix(0, 10), prefix(0, 10) + b"short", prefix(3, 3) + b"abc"):
                for protocol in (REQUEST, STREAM):
                    assert await send_raw(attacker, victim, protocol, data) == b""
            assert not victim.refused

    run_real(main())


def test_oversized_lengths_are_refused_at_the_prefix(tmp_path: Path) -> None:
    async def main() -> None:
        async with victim_and_attacker(tmp_path) as (victim, attacker, _):
            await send_raw(attacker, victim, REQUEST, prefix(0, MAX_REQUEST_BYTES + 1))
            await victim.until_refused(Reason.OVERSIZED, 1)
            await send_raw(attacker, victim, STREAM, prefix(0, MAX_PAYLOAD_BYTES + 1))
            await victim.until_refused(Reason.OVERSIZED, 2)
            await send_raw(attacker, victim, STREAM, prefix(2**32 - 1, 0))
            await victim.until_refused(Reason.OVERSIZED, 3)

    run_real(main())


def test_request_that_is_no_request_is_malformed(tmp_path: Path) -> None:
    async def main() -> None:
        async with victim_and_attacker(tmp_path) as (victim, attacker, _):
            for request in (b"", prefix(1, 1) + b"hp"):
                data = request + END_OF_STREAM_BYTES
                assert b"malformed" in await send_raw(attacker, victim, REQUEST, data, wait_for_answer=True)
            assert victim.refused == {Reason.MALFORMED: 2}

    run_real(main())


def test_attacker_that_goes_on_is_disconnected(tmp_path: Path) -> None:
    async def main() -> None:
        async with victim_and_attacker(tmp_path) as (victim, attacker, _):
            for _ in range(40):
                with suppress(P2PDaemonError, OSError, asyncio.IncompleteReadError):  # when it is cut off
                    await send_raw(attacker, victim, REQUEST, END_OF_STREAM_BYTES, wait_for_answer=True)
            assert victim.refused[Reason.MALFORMED] == 33

    run_real(main())


def test_random_bytes_to_the_dht(tmp_path: Path) -> None:
    async def main() -> None:
        async with victim_and_attacker(tmp_path) as (victim, attacker, honest):
            source = random.Random(2)
            for call in ("rpc_ping", "rpc_store", "rpc_find"):
                for _ in range(20):
                    with suppress(P2PHandlerError):
                        data = source.randbytes(source.randrange(200))
                        await attacker._client.call_unary_handler(victim.peer, f"DHTProtocol.{call}", data)
            assert await honest.dht.protocol.call_ping(victim.peer) is not None
            assert len(victim.node.dht.protocol.storage) == 0

    run_real(main())


def test_peer_with_another_kind_of_identity_is_not_served(tmp_path: Path) -> None:
    async def main() -> None:
        async with victim_and_attacker(tmp_path) as (victim, _, _):
            path = rsa_identity(tmp_path / "rsa.key")
            stranger = await P2P.create(
                initial_peers=victim.node.addresses(), identity_path=str(path), check_if_identity_free=False
            )
            try:
                assert str(stranger.peer_id).startswith("Qm")
                assert await send_raw(stranger, victim, REQUEST, prefix(0, 1) + b"x", wait_for_answer=True) == b""
            finally:
                await stranger.shutdown()

    run_real(main())


def rsa_identity(path: Path) -> Path:
    """An identity file of the kind that libp2p had first; its PeerID is a hash, from which nobody learns the key."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    encoded = key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    path.write_bytes(crypto_pb2.PrivateKey(key_type=crypto_pb2.KeyType.RSA, data=encoded).SerializeToString())
    path.chmod(0o600)
    return path
