"""Fetching a content: from several holders at once, block by block, each block verified before it is kept.

A holder may have only some of the blocks: it says which, and is asked for those. A holder that breaks off is not asked
again at once; one that gives a wrong block never again. Towards the end, whoever is free fetches what slower
holders still owe, so that none of them holds up the whole.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Protocol

import structlog

from dht.interfaces import Frame, OnRejected, Stream, Transport, TransportError
from peer.contents import BLOCKS_KIND, INDEX_KIND
from peer.errors import PeerError
from peer.signal import Signal
from peer.tasks import first_of
from protocols.blocks import BLOCK_BYTES, BlockIndex, from_bitmap
from protocols.identity import PeerId
from protocols.rejection import Reason, Rejected

REQUEST_SECONDS = 20.0
BLOCK_SECONDS = 60.0
INDEX_AT_ONCE = 4
PATIENCE_SECONDS = 15.0
PATIENCE_FACTOR = 3.0
"""Whoever is free fetches a block again when it takes so many times as long as any block before, and so long at least:
when our own line is the slow one, each block that comes twice holds up all others, and whatever else we are told."""
LOOK_SECONDS = 2.0
"""How often others are looked for who hold blocks too."""

log = structlog.get_logger()

Members = Callable[[], Awaitable[Sequence[PeerId]]]
"""Who may hold the content now."""


class ContentNotFound(PeerError):
    """None of the holders gave the whole content."""


class Destination(Protocol):
    """Where the blocks of a content are put."""

    held: set[int]
    """The numbers of those that are there."""

    def write(self, number: int, block: memoryview) -> None:
        """Blocking. Raises PeerError when there is no room."""


async def fetch_content(
    transport: Transport, address: bytes, holders: Sequence[PeerId], limit_bytes: int, on_rejected: OnRejected
) -> memoryview:
    """The content at `address`, in memory. Raises ContentNotFound; Rejected (oversized) as `fetch_index` does."""
    index = await fetch_index(transport, address, holders, limit_bytes, on_rejected)
    memory = _Memory(index.size_bytes)
    await fetch_blocks(transport, index, memory, holders, on_rejected)
    return memory.content


async def fetch_index(
    transport: Transport, address: bytes, holders: Sequence[PeerId], limit_bytes: int, on_rejected: OnRejected
) -> BlockIndex:
    """From the first of the holders that answers well; a few are asked at once, for some may be silent.

    Raises ContentNotFound; Rejected (oversized) when the content is larger than `limit_bytes`.
    """
    found: list[BlockIndex] = []

    async def ask(holder: PeerId) -> None:
        try:
            data = await transport.request(holder, INDEX_KIND, address, REQUEST_SECONDS)
            found.append(BlockIndex.from_bytes(data, address))
            _cancel_others(asked)
        except TransportError as error:
            log.debug("a holder gave no index", holder=holder, error=str(error))
        except Rejected as error:
            on_rejected(holder, str(error.reason), str(error))
            log.info("a holder gave a wrong index", holder=holder, error=str(error))

    for first in range(0, len(holders), INDEX_AT_ONCE):
        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(ask(holder)) for holder in holders[first : first + INDEX_AT_ONCE]]
        if found:
            if found[0].size_bytes > limit_bytes:
                message = f"a content of {found[0].size_bytes} bytes, over the limit of {limit_bytes}"
                raise Rejected(Reason.OVERSIZED, message)
            return found[0]
    raise ContentNotFound("no holder has given the index of the content")


async def fetch_blocks(
    transport: Transport,
    index: BlockIndex,
    destination: Destination,
    holders: Sequence[PeerId],
    on_rejected: OnRejected,
    members: Members | None = None,
) -> None:
    """Fills `destination` with the blocks that it does not hold yet.

    `members` is asked now and then for holders that have come since. Raises ContentNotFound when nobody gives more;
    what has come until then stays in `destination`.
    """
    try:
        await _Download(transport, index, destination, on_rejected).run(holders, members)
    except BaseExceptionGroup as group:
        raise first_of(group) from group


class _Memory:
    """A `Destination` in memory."""

    def __init__(self, size_bytes: int) -> None:
        self.content = memoryview(bytearray(size_bytes))
        self.held: set[int] = set()

    def write(self, number: int, block: memoryview) -> None:
        start = number * BLOCK_BYTES
        self.content[start : start + len(block)] = block


class _Download:
    """The blocks of one content, on their way from several holders to one destination."""

    def __init__(
        self, transport: Transport, index: BlockIndex, destination: Destination, on_rejected: OnRejected
    ) -> None:
        self._transport, self._index, self._destination = transport, index, destination
        self._address = index.digest
        self._on_rejected = on_rejected
        missing = [number for number in _order(transport.peer_id, index) if number not in destination.held]
        self._wanted = dict.fromkeys(reversed(missing))
        """Blocks that nobody is fetching, the next one last."""
        self._missing = dict.fromkeys(missing, 0)
        """Block → how many are fetching it."""
        self._takers: dict[PeerId, asyncio.Task[None]] = {}
        self._changed = Signal()
        self._slowest_seconds = 0.0
        self._liars: set[PeerId] = set()

    async def run(self, holders: Sequence[PeerId], members: Members | None) -> None:
        """Raises ContentNotFound, and what `Destination.write` raises, in a group."""
        before = len(self._missing) + 1
        while self._missing and len(self._missing) < before:  # again, as long as it brings something
            before = len(self._missing)
            async with asyncio.TaskGroup() as tasks:
                self._take_from_all(holders, tasks)
                if members is not None:
                    await self._look_for_more(members, tasks)
        if self._missing:
            count = f"{len(self._missing)} of {len(self._index.blocks)}"
            raise ContentNotFound(f"{count} blocks could be had from none of the holders")

    async def _look_for_more(self, members: Members, tasks: asyncio.TaskGroup) -> None:
        while running := [taker for taker in self._takers.values() if not taker.done()]:
            _, unfinished = await asyncio.wait(running, timeout=LOOK_SECONDS)
            if unfinished:
                self._take_from_all(await members(), tasks)

    def _take_from_all(self, holders: Sequence[PeerId], tasks: asyncio.TaskGroup) -> None:
        for holder in holders:
            taker = self._takers.get(holder)
            if holder not in self._liars and (taker is None or taker.done()):
                self._takers[holder] = tasks.create_task(self._take_from(holder))

    async def _take_from(self, holder: PeerId) -> None:
        """Until all is here, or the holder fails or has no more for us."""
        number: int | None = None
        offer = _Offer()
        try:
            async with await self._transport.open_stream(holder, BLOCKS_KIND) as stream:
                while not offer.ended and (number := await self._next_block(offer)) is not None:
                    self._missing[number] += 1
                    await self._take_block(stream, number, offer)
                    self._give_back(number)
                    number = None
            if not self._missing:
                _cancel_others(self._takers.values())  # nobody is waited for
        except (TransportError, Rejected, TimeoutError) as error:
            if isinstance(error, Rejected):
                self._liars.add(holder)
                self._on_rejected(holder, str(error.reason), str(error))
            log.info("a holder failed", holder=holder, error=str(error))
        finally:
            if number is not None:
                self._give_back(number)

    async def _next_block(self, offer: "_Offer") -> int | None:
        """One that nobody fetches; or, when nothing has come for long, one that somebody else is slow with."""
        while self._missing:
            while offer.numbers:
                number = offer.numbers.pop()
                if number in self._wanted:
                    del self._wanted[number]
                    return number
            if self._wanted:
                return self._wanted.popitem()[0]
            try:
                async with asyncio.timeout(max(PATIENCE_SECONDS, PATIENCE_FACTOR * self._slowest_seconds)):
                    await self._changed.wait()
            except TimeoutError:
                return min(self._missing, key=lambda number: self._missing[number], default=None)
        return None

    def _give_back(self, number: int) -> None:
        """The block is not fetched by this holder any more; when it has not come, anybody may."""
        if number in self._missing:
            self._missing[number] -= 1
            self._wanted[number] = None
            self._changed.notify()

    async def _take_block(self, stream: Stream, number: int, offer: "_Offer") -> None:
        """Keeps the block, or notes in `offer` which ones the holder has instead."""
        began = self._transport.clock.monotonic()
        async with asyncio.timeout(BLOCK_SECONDS):
            frame = await _ask(stream, self._address, number)
        block = memoryview(frame.payload)
        if not block:
            held = from_bitmap(frame.header, len(self._index.blocks))
            offer.replace(number, held, [each for each in self._wanted if each in held])
            return
        await self._transport.in_thread(self._keep, number, block)
        self._slowest_seconds = max(self._slowest_seconds, self._transport.clock.monotonic() - began)
        self._wanted.pop(number, None)
        if self._missing.pop(number, None) is not None:
            self._destination.held.add(number)
            self._changed.notify()

    def _keep(self, number: int, block: memoryview) -> None:
        self._index.check(number, block)
        if number in self._missing:
            self._destination.write(number, block)


class _Offer:
    """What a holder has for us: everything, as far as we know, until it says that it has only some blocks."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        """Those that it has said to hold, the next one last."""
        self.ended = False
        """It holds nothing more that we want now."""
        self._held: set[int] = set()

    def replace(self, refused: int, held: set[int], numbers: list[int]) -> None:
        """It does not hold `refused`, which it may have said before to hold, but `held`, of which we want `numbers`."""
        self.ended = not numbers or refused in self._held | held
        self._held, self.numbers = held, numbers


def _order(peer: PeerId, index: BlockIndex) -> list[int]:
    """All numbers, in another order on every peer: who start together then have blocks for each other."""
    numbers = list(range(len(index.blocks)))
    random.Random(peer).shuffle(numbers)  # noqa: S311  (spreads, and hides nothing)
    return numbers


def _cancel_others(tasks: Iterable[asyncio.Task[None]]) -> None:
    for task in tasks:
        if task is not asyncio.current_task():
            task.cancel()


async def _ask(stream: Stream, address: bytes, number: int) -> Frame:
    await stream.send(Frame(address + number.to_bytes(8, "big")))
    frame = await stream.receive()
    if frame is None:
        raise Rejected(Reason.MALFORMED, "the holder ended the stream")
    return frame
