"""Contents by address, served to whoever asks: states from memory, shards from files, whole or still on their way.

A peer asks for the index of a content, then on one stream for blocks by number. A block that is not here (yet) is
answered with a bitmap of those that are, so that who asks learns at once what to ask us for. `peer.content_fetch` is
the other end.
"""

from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from dht.interfaces import Frame, Stream, Transport
from peer.streams import REQUEST_BYTES, next_request
from protocols.blocks import BlockIndex, cut, to_bitmap
from protocols.encoding import DIGEST_BYTES
from protocols.identity import PeerId
from protocols.rejection import Reason, Rejected

INDEX_KIND = "index"
BLOCKS_KIND = "blocks"
MOST_FETCHED = 2
"""So many contents stay because somebody fetches them: else slow readers could make us keep any number."""

Buffers = Sequence[bytes | memoryview]


class Content(Protocol):
    """What can be served block by block."""

    @property
    def index(self) -> BlockIndex: ...

    @property
    def held(self) -> Collection[int]:
        """The numbers of the blocks that are here now."""

    def read(self, number: int) -> bytes | memoryview | None:
        """One of the blocks, None when it is not here. Blocking."""


class MemoryContent:
    """A content that lies in memory, such as a model's state."""

    def __init__(self, index: BlockIndex, buffers: Buffers) -> None:
        self.index = index
        self.held = range(len(index.blocks))
        self._buffers = buffers

    def read(self, number: int) -> bytes | memoryview:
        pieces = cut(self._buffers, number)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class ContentStore:
    """What is served here: immutable contents, the oldest let go when they take too much memory.

    The newest stays, whatever it takes, and so do the last MOST_FETCHED of those that somebody is fetching.
    """

    def __init__(
        self, in_thread: Callable[..., Awaitable[Any]], limit_bytes: int = 64 * 1024 * 1024, at_most: int = 32
    ) -> None:
        """`in_thread`: the transport's, to read blocks off the event loop."""
        self._in_thread = in_thread
        self._limit_bytes, self._at_most = limit_bytes, at_most
        self._contents: OrderedDict[bytes, Content] = OrderedDict()
        self._pinned: dict[bytes, Content] = {}
        self._fetched: Counter[bytes] = Counter()
        """Content → the streams on which it is being fetched."""

    async def serve(self, transport: Transport) -> None:
        """From now on others can fetch from here."""
        await transport.serve_requests(INDEX_KIND, self.serve_index)
        await transport.serve_streams(BLOCKS_KIND, self.serve_blocks, REQUEST_BYTES)

    def put(self, index: BlockIndex, buffers: Buffers) -> None:
        self._contents[index.digest] = MemoryContent(index, buffers)
        self._contents.move_to_end(index.digest)
        self._let_go()

    def _let_go(self) -> None:
        fetched = [address for address in self._contents if self._fetched[address]][-MOST_FETCHED:]
        for address in list(self._contents)[:-1]:
            if len(self._contents) <= self._at_most and self._size_bytes <= self._limit_bytes:
                return
            if address not in fetched:
                del self._contents[address]

    def pin(self, address: bytes, content: Content) -> None:
        """For contents that stay until they are unpinned; their memory is somebody else's."""
        self._pinned[address] = content

    def unpin(self, address: bytes) -> None:
        self._pinned.pop(address, None)

    def whole(self, address: bytes) -> memoryview | None:
        """A copy of a content that lies in memory here, if one of that address does. Blocking."""
        content = self._contents.get(address)
        if content is None:
            return None
        blocks = [content.read(number) for number in content.held]
        return memoryview(b"".join(block for block in blocks if block is not None))

    @property
    def held(self) -> set[bytes]:
        """The addresses of what is kept for now."""
        return set(self._contents)

    @property
    def fetched(self) -> set[bytes]:
        """The addresses of what somebody is fetching."""
        return set(self._fetched)

    @property
    def _size_bytes(self) -> int:
        return sum(content.index.size_bytes for content in self._contents.values())

    def _get(self, address: bytes) -> Content:
        if len(address) != DIGEST_BYTES:
            raise Rejected(Reason.UNEXPECTED, "not the address of a content")
        content = self._contents.get(address) or self._pinned.get(address)
        if content is None:
            raise Rejected(Reason.ABSENT, "no such content is held here")
        return content

    async def serve_index(self, _peer: PeerId, address: bytes) -> bytes:
        """The index of a content. Raises Rejected."""
        return self._get(address).index.to_bytes()

    async def serve_blocks(self, stream: Stream) -> None:
        """Answers each request frame (address, then the block's number in 8 bytes) with that block.

        The block is the payload; when it is not here the payload is empty, and the header the bitmap of those that are.
        A stream is for the blocks of one content. Raises Rejected.
        """
        frame = await next_request(stream)
        if frame is None:
            return
        if len(frame.header) != DIGEST_BYTES + 8:
            raise Rejected(Reason.MALFORMED, "not a request for a block")
        address = frame.header[:DIGEST_BYTES]
        content = self._get(address)
        count = len(content.index.blocks)
        with self._being_fetched(address):
            while frame is not None:
                if len(frame.header) != DIGEST_BYTES + 8 or frame.header[:DIGEST_BYTES] != address:
                    raise Rejected(Reason.MALFORMED, "not a request for a block of this content")
                number = int.from_bytes(frame.header[DIGEST_BYTES:], "big")
                if number >= count:
                    raise Rejected(Reason.UNEXPECTED, f"the content has no block {number}")
                block = await self._in_thread(content.read, number)
                await stream.send(Frame(to_bitmap(content.held, count), b"") if block is None else Frame(b"", block))
                frame = await next_request(stream)

    @contextmanager
    def _being_fetched(self, address: bytes) -> Iterator[None]:
        self._fetched[address] += 1
        try:
            yield
        finally:
            self._fetched[address] -= 1
            if not self._fetched[address]:
                del self._fetched[address]
                self._let_go()
