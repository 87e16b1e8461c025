"""From whom a joiner gets the blocks of a content, and from how many at the same time."""

from collections import Counter

from dht.interfaces import Clock, Frame, Stream, Transport
from dht.wrapped_transport import WrappedStream, WrappedTransport
from peer.contents import BLOCKS_KIND
from protocols.identity import PeerId


class BlockCounts:
    def __init__(self, clock: Clock) -> None:
        self.by_holder: Counter[PeerId] = Counter()
        self.most_holders_at_once = 0
        self.began: float | None = None
        """When the first block was asked for, and `ended`: when the last one came; seconds, monotonic."""
        self.ended = 0.0
        self._clock = clock
        self._asked: set[PeerId] = set()

    def ask(self, holder: PeerId) -> None:
        if self.began is None:
            self.began = self._clock.monotonic()
        self._asked.add(holder)
        self.most_holders_at_once = max(self.most_holders_at_once, len(self._asked))

    def come(self, holder: PeerId) -> None:
        self.ended = self._clock.monotonic()
        self._asked.discard(holder)
        self.by_holder[holder] += 1


class CountingTransport(WrappedTransport):
    """That of the joiner."""

    def __init__(self, transport: Transport) -> None:
        super().__init__(transport)
        self.counts = BlockCounts(transport.clock)

    async def open_stream(self, peer: PeerId, kind: str) -> Stream:
        stream = await super().open_stream(peer, kind)
        return CountingStream(stream, self.counts) if kind == BLOCKS_KIND else stream


class CountingStream(WrappedStream):
    def __init__(self, stream: Stream, counts: BlockCounts) -> None:
        super().__init__(stream)
        self._counts = counts

    async def send(self, frame: Frame) -> None:
        self._counts.ask(self.peer)
        await super().send(frame)

    async def receive(self) -> Frame | None:
        frame = await super().receive()
        if frame is not None:
            self._counts.come(self.peer)
        return frame
