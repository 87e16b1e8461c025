"""Members that lie, over real libp2p: they speak the protocol with valid identities of their own."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TypeVar

from dht.border import Border
from dht.interfaces import Frame, Stream
from dht.local_discovery import LocalDiscovery
from dht.node import Node, count_nothing
from peer.contents import BLOCKS_KIND, INDEX_KIND, ContentStore
from peer.demo import demo_manifest
from peer.home import Home
from peer.membership import Membership
from peer.sync import HEAD_KIND
from peer.tasks import beside
from protocols.admission import Admission
from protocols.heads import Head
from protocols.identity import PeerId
from protocols.records import RosterEntry
from protocols.signed import Signer, open_signed
from protocols.state import ModelState


class Liar:
    """A member of the run that has found the others; what it answers to a joiner is for a subclass to say."""

    def __init__(self, node: Node, signer: Signer, state: ModelState) -> None:
        self.node, self.signer, self.state = node, signer, state
        self.asked = 0
        """How often it has had the chance to lie."""

    def entry(self) -> tuple[RosterEntry, int]:
        entry = RosterEntry(
            expires=0.0,
            name=type(self).__name__.lower(),
            role="trainer",
            addresses=self.node.addresses(),
            client_mode=False,
            state_digest=self.state.digest,
            samples_contributed=0,
            samples_per_second=0.0,
            bandwidth_bytes_per_second=0.0,
            departed=False,
        )
        return entry, self.state.epoch

    async def head(self, peer: PeerId, nonce: bytes) -> bytes:
        raise NotImplementedError

    async def index(self, peer: PeerId, address: bytes) -> bytes:
        raise NotImplementedError

    async def blocks(self, stream: Stream) -> None:
        raise NotImplementedError


class Forger(Liar):
    """Signs and serves a state of its own making, far ahead of the others."""

    async def head(self, _peer: PeerId, nonce: bytes) -> bytes:
        self.asked += 1
        return self.signer.sign(Head(digests=(self.state.digest,), nonce=nonce), self.state.epoch).wire

    async def index(self, _peer: PeerId, _address: bytes) -> bytes:
        return self.state.index.to_bytes()

    async def blocks(self, stream: Stream) -> None:
        contents = ContentStore(self.node.transport.in_thread)
        contents.put(self.state.index, self.state.buffers())
        await contents.serve_blocks(stream)


class Corrupter(Liar):
    """Signs the true state, as an honest member tells it, and serves it with one bit turned in every block."""

    honest: PeerId

    async def head(self, _peer: PeerId, nonce: bytes) -> bytes:
        wire = await self.node.transport.request(self.honest, HEAD_KIND, nonce, 5)
        told = open_signed(wire, Head, run=self.signer.run, sender=self.honest)
        return self.signer.sign(told.body, told.epoch).wire

    async def index(self, _peer: PeerId, address: bytes) -> bytes:
        return await self.node.transport.request(self.honest, INDEX_KIND, address, 5)

    async def blocks(self, stream: Stream) -> None:
        async with await self.node.transport.open_stream(self.honest, BLOCKS_KIND) as source:
            while (request := await stream.receive()) is not None:
                self.asked += 1
                await source.send(request)
                answer = await source.receive()
                block = bytearray(answer.payload)
                block[len(block) // 2] ^= 1
                await stream.send(Frame(b"", block))


AnyLiar = TypeVar("AnyLiar", bound=Liar)


@asynccontextmanager
async def lying(kind: type[AnyLiar], home: Path, runtime: Path, run: str, state: ModelState) -> AsyncIterator[AnyLiar]:
    """A liar that honest daemons with this runtime directory find."""
    place = Home(home)
    identity = place.identity()
    async with AsyncExitStack() as resources:
        node = await Node.start(place.identity_path, listen=("/ip4/127.0.0.1/tcp/0",))
        resources.push_async_callback(node.close)
        liar = kind(node, Signer(identity, run, 1), state)
        border = Border(node.peer_id, node.transport.clock, count_nothing)
        events, open_to_all = [lambda *_: None] * 3, Admission(demo_manifest())
        membership = Membership(
            node.transport, node.records, liar.signer, liar.entry, *events, border=border, admission=open_to_all
        )
        await membership.start()
        await node.transport.serve_requests(HEAD_KIND, liar.head)
        await node.transport.serve_requests(INDEX_KIND, liar.index)
        await node.transport.serve_streams(BLOCKS_KIND, liar.blocks)
        discovery = resources.enter_context(LocalDiscovery(runtime, run, node.peer_id, node.addresses()))
        async with beside(membership.run()):
            for peer, addresses in discovery.others():
                await membership.meet(peer, addresses)
            yield liar
