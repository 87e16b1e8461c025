"""Contents by address: served to whoever asks, and fetched from several holders at once, block by block, verified."""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

import structlog

from dht.interfaces import Frame, OnRejected, Stream, Transport, TransportError
from peer.errors import PeerError
from peer.signal import Signal
from peer.streams import next_request
from protocols.blocks import BLOCK_BYTES, BlockIndex, cut
from protocols.encoding import DIGEST_BYTES
from protocols.identity import PeerId
from protocols.rejection import Reason, Rejected

INDEX_KIND = "index"
BLOCKS_KIND = "blocks"
REQUEST_SECONDS = 20.0
BLOCK_SECONDS = 60.0
INDEX_AT_ONCE = 4
MOST_FETCHED = 2
"""So many contents stay because somebody fetches them: else slow readers could make us keep any number."""
PATIENCE_SECONDS = 5.0
PATIENCE_FACTOR = 3.0
"""Whoever is free fetches a block again when it takes so many times as long as any block before."""

log = structlog.get_logger()

Buffers = Sequence[bytes | memoryview]


class ContentNotFound(PeerError):
    """None of the holders gave the whole content."""


class ContentStore:
    """What is served here: immutable contents, the oldest let go when they take too much memory.

    The newest stays, whatever it takes, and so do the last MOST_FETCHED of those that somebody is fetching.
    """

    def __init__(self, limit_bytes: int = 64 * 1024 * 1024, at_most: int = 32) -> None:
        self._limit_bytes, self._at_most = limit_bytes, at_most
        self._contents: OrderedDict[bytes, tuple[BlockIndex, Buffers]] = OrderedDict()
        self._pinned: dict[bytes, tuple[BlockIndex, Buffers]] = {}
        self._fetched: Counter[bytes] = Counter()
        """Content → the streams on which it is being fetched."""

    def put(self, index: BlockIndex, buffers: Buffers) -> None:
        self._contents[index.digest] = (index, buffers)
        self._contents.move_to_end(index.digest)
        self._let_go()

    def _let_go(self) -> None:
        fetched = [address for address in self._contents if self._fetched[address]][-MOST_FETCHED:]
        for address in list(self._contents)[:-1]:
            if len(self._contents) <= self._at_most and self._size_bytes <= self._limit_bytes:
                return
            if address not in fetched:
                del self._contents[address]

    def pin(self, index: BlockIndex, buffers: Buffers) -> None:
        """Like `put`, for contents that stay (files: `buffers` are views of a memory map)."""
        self._pinned[index.digest] = (index, buffers)

    @property
    def held(self) -> set[bytes]:
        """The addresses of what is kept for now."""
        return set(self._contents)

    @property
    def _size_bytes(self) -> int:
        return sum(index.size_bytes for index, _ in self._contents.values())

    def _get(self, address: bytes) -> tuple[BlockIndex, Buffers]:
        content = self._contents.get(address) or self._pinned.get(address)
        if content is None:
            raise Rejected(Reason.UNEXPECTED, "no such content is held here")
        return content

    async def serve_index(self, _peer: PeerId, address: bytes) -> bytes:
        """The index of a content. Raises Rejected."""
        return self._get(address)[0].to_bytes()

    async def serve_blocks(self, stream: Stream) -> None:
        """Answers each request frame (address, then the block's number in 8 bytes) with that block.

        A stream is for the blocks of one content. Raises Rejected.
        """
        frame = await next_request(stream)
        if frame is None:
            return
        address = frame.header[:DIGEST_BYTES]
        index, buffers = self._get(address)
        with self._being_fetched(address):
            while frame is not None:
                if len(frame.header) != DIGEST_BYTES + 8 or frame.header[:DIGEST_BYTES] != address:
                    raise Rejected(Reason.MALFORMED, "not a request for a block of this content")
                number = int.from_bytes(frame.header[DIGEST_BYTES:], "big")
                if number >= len(index.blocks):
                    raise Rejected(Reason.UNEXPECTED, f"the content has no block {number}")
                pieces = cut(buffers, number)
                await stream.send(Frame(b"", pieces[0] if len(pieces) == 1 else b"".join(pieces)))
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


async def fetch_content(
    transport: Transport,
    address: bytes,
    holders: Sequence[PeerId],
    limit_bytes: int,
    on_rejected: OnRejected,
    allocate: Callable[[int], memoryview] = lambda size: memoryview(bytearray(size)),
    *,
    resume: bool = False,
) -> memoryview:
    """The content at `address`, from all `holders` at once; a holder that gives one wrong block is not asked again.

    Towards the end, whoever is free fetches what slower holders still owe, so that none of them holds up the whole.
    `resume`: what `allocate` gives may hold blocks already; those that are right are not fetched again.
    Raises ContentNotFound; Rejected (oversized) when the content is larger than `limit_bytes`.
    """
    index = await _fetch_index(transport, address, holders, on_rejected)
    if index.size_bytes > limit_bytes:
        raise Rejected(Reason.OVERSIZED, f"a content of {index.size_bytes} bytes, over the limit of {limit_bytes}")
    content = allocate(index.size_bytes)
    held = await transport.in_thread(_right_blocks, index, content) if resume else set()
    await _Download(transport, address, index, content, held, on_rejected).run(holders)
    return content


class _Download:
    """The blocks of one content, on their way from several holders into one buffer."""

    def __init__(
        self,
        transport: Transport,
        address: bytes,
        index: BlockIndex,
        content: memoryview,
        held: set[int],
        on_rejected: OnRejected,
    ) -> None:
        """`held`: the blocks that are in `content` already."""
        self._transport, self._address, self._index, self._content = transport, address, index, content
        self._on_rejected = on_rejected
        self._wanted = [number for number in reversed(range(len(index.blocks))) if number not in held]
        """Blocks that nobody is fetching, the next one last."""
        self._missing = dict.fromkeys(self._wanted, 0)
        """Block → how many are fetching it."""
        self._takers: list[asyncio.Task[None]] = []
        self._changed = Signal()
        self._slowest_seconds = 0.0
        self._liars: set[PeerId] = set()

    async def run(self, holders: Sequence[PeerId]) -> None:
        """Raises ContentNotFound."""
        before = len(self._missing) + 1
        while self._missing and len(self._missing) < before:  # again, as long as it brings something
            before = len(self._missing)
            async with asyncio.TaskGroup() as tasks:
                self._takers = [
                    tasks.create_task(self._take_from(holder)) for holder in holders if holder not in self._liars
                ]
        if self._missing:
            count = f"{len(self._missing)} of {len(self._index.blocks)}"
            raise ContentNotFound(f"{count} blocks could be had from none of the holders")

    async def _take_from(self, holder: PeerId) -> None:
        number: int | None = None
        try:
            async with await self._transport.open_stream(holder, BLOCKS_KIND) as stream:
                while (number := await self._next_block()) is not None:
                    self._missing[number] += 1
                    await self._take_block(stream, number)
            _cancel_others(self._takers)  # all is here: nobody is waited for
        except (TransportError, Rejected, TimeoutError) as error:
            if isinstance(error, Rejected):
                self._liars.add(holder)
                self._on_rejected(holder, str(error.reason), str(error))
            log.info("a holder failed", holder=holder, error=str(error))
        finally:
            if number in self._missing:
                self._missing[number] -= 1
                self._wanted.append(number)
                self._changed.notify()

    async def _next_block(self) -> int | None:
        """One that nobody fetches; or, when nothing has come for long, one that somebody else is slow with."""
        while self._missing:
            if self._wanted:
                number = self._wanted.pop()
                if number in self._missing:
                    return number
                continue
            try:
                async with asyncio.timeout(max(PATIENCE_SECONDS, PATIENCE_FACTOR * self._slowest_seconds)):
                    await self._changed.wait()
            except TimeoutError:
                return min(self._missing, key=lambda number: self._missing[number])
        return None

    async def _take_block(self, stream: Stream, number: int) -> None:
        began = self._transport.clock.monotonic()
        async with asyncio.timeout(BLOCK_SECONDS):
            block = await _fetch_block(stream, self._address, number)
        await self._transport.in_thread(self._index.check, number, block)
        self._slowest_seconds = max(self._slowest_seconds, self._transport.clock.monotonic() - began)
        if self._missing.pop(number, None) is not None:
            start = number * BLOCK_BYTES
            self._content[start : start + len(block)] = block
            self._changed.notify()


def _right_blocks(index: BlockIndex, content: memoryview) -> set[int]:
    right = set()
    for number in range(len(index.blocks)):
        start = number * BLOCK_BYTES
        with suppress(Rejected):
            index.check(number, content[start : start + index.block_size(number)])
            right.add(number)
    return right


async def _fetch_index(
    transport: Transport, address: bytes, holders: Sequence[PeerId], on_rejected: OnRejected
) -> BlockIndex:
    """From the first of the holders that answers well; a few are asked at once, for some may be silent."""
    found: list[BlockIndex] = []

    async def ask(holder: PeerId) -> None:
        try:
            data = await transport.request(holder, INDEX_KIND, address, REQUEST_SECONDS)
            found.append(BlockIndex.from_bytes(data, address))
            _cancel_others(asked)
        except TransportError as error:
            log.info("a holder gave no index", holder=holder, error=str(error))
        except Rejected as error:
            on_rejected(holder, str(error.reason), str(error))
            log.info("a holder gave a wrong index", holder=holder, error=str(error))

    for first in range(0, len(holders), INDEX_AT_ONCE):
        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(ask(holder)) for holder in holders[first : first + INDEX_AT_ONCE]]
        if found:
            return found[0]
    raise ContentNotFound("no holder has given the index of the content")


def _cancel_others(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        if task is not asyncio.current_task():
            task.cancel()


async def _fetch_block(stream: Stream, address: bytes, number: int) -> memoryview:
    await stream.send(Frame(address + number.to_bytes(8, "big")))
    frame = await stream.receive()
    if frame is None:
        raise Rejected(Reason.MALFORMED, "the holder ended the stream")
    return memoryview(frame.payload)
