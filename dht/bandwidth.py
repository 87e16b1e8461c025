"""How fast this peer can send, measured on its streams, and a limit on it that its user may set.

A burst is a time of sending without a pause. Its rate is the best average between any two moments in it: never more
than the link takes, because nothing is counted that buffers on the way may hold; and not less because a receiver, or
whoever feeds the link, had to wait for others before or after. So a rate that was reached counts at once, a lower one
by and by. Who only ever sends little is not measured. The limit is a token bucket over all streams, requests and
answers; who waits for tokens reads on but sends no more, and so its own senders feel it. What it does not count: the
DHT's messages, and what p2pd, TLS and TCP add, a few percent.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from dht.interfaces import Clock
from protocols.identity import PeerId

BUFFERED_BYTES = 512 * 1024
"""To every receiver: what sockets and flow-control windows take at once, however slow the link is."""
SAMPLE_BYTES = 512 * 1024
"""A burst with less than this beyond what is buffered tells nothing."""
PAUSE_SECONDS = 0.25
"""After so long without sending, the next burst begins."""
SMOOTHING = 0.3
"""Weight of the newest burst where it was slower."""
MARKS = 16
"""Moments of a burst from which its rate is taken, at most; two are at least as far apart as a sample."""
BURST_SECONDS = 0.25
"""So much of a second's allowance may be sent at once."""
SHORTEST_WAIT_SECONDS = 0.001
SMALL_BYTES = 16 * 1024
"""Frames up to here (messages, headers) do not wait for tokens, they only use them up."""


@dataclass(slots=True)
class _Rate:
    """The current burst, and what the earlier ones came to."""

    marks: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=MARKS))
    """Moments, and what of the burst was sent by then."""
    last: float = float("-inf")
    sent_bytes: int = 0
    receivers: set[PeerId] = field(default_factory=set)
    best: float = 0.0
    smoothed: float = 0.0

    def begin(self, now: float) -> None:
        if now - self.last > PAUSE_SECONDS:
            self.smoothed, self.best = self.bytes_per_second, 0.0
            self.sent_bytes = 0
            self.receivers.clear()
            self.marks.clear()
            self.marks.append((now, 0))
        self.last = now

    def end(self, peer: PeerId, size_bytes: int, now: float) -> None:
        self.last = now
        self.sent_bytes += size_bytes
        self.receivers.add(peer)
        beyond_buffers = self.sent_bytes - BUFFERED_BYTES * len(self.receivers)
        for began, sent_before in self.marks:
            counted = beyond_buffers - sent_before
            if counted >= SAMPLE_BYTES and now > began:
                self.best = max(self.best, counted / (now - began))
        if self.sent_bytes - self.marks[-1][1] >= SAMPLE_BYTES:
            self.marks.append((now, self.sent_bytes))

    @property
    def bytes_per_second(self) -> float:
        if not self.smoothed or self.best >= self.smoothed:
            return self.best
        if not self.best:
            return self.smoothed
        return 1 / ((1 - SMOOTHING) / self.smoothed + SMOOTHING / self.best)  # a mean of times, not of rates


class Bandwidth:
    """Of one transport: what it has measured, and its limit."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._total = _Rate()
        self._bucket: _TokenBucket | None = None

    @property
    def limit_bytes_per_second(self) -> float | None:
        return self._bucket.bytes_per_second if self._bucket else None

    @limit_bytes_per_second.setter
    def limit_bytes_per_second(self, limit: float | None) -> None:
        self._bucket = _TokenBucket(limit, self._clock) if limit else None

    @property
    def bytes_per_second(self) -> float:
        """What this peer can send to all others, within its limit; where nothing is measured the limit, or 0."""
        limit = self.limit_bytes_per_second
        measured = self._total.bytes_per_second
        return measured if limit is None else min(measured or limit, limit)

    async def allow(self, size_bytes: int) -> None:
        """Returns when so much may be sent."""
        if self._bucket is not None:
            await self._bucket.take(size_bytes)

    def sending(self, peer: PeerId, size_bytes: int) -> Callable[[], None]:
        """To be called when the sending of a frame begins; its result, when the frame is gone."""
        self._total.begin(self._clock.monotonic())
        return lambda: self._total.end(peer, size_bytes, self._clock.monotonic())


class _TokenBucket:
    """Tokens are bytes. What is taken beyond the stock is owed, and whoever comes next waits until it is paid."""

    def __init__(self, bytes_per_second: float, clock: Clock) -> None:
        self.bytes_per_second = bytes_per_second
        self._clock = clock
        self._capacity = bytes_per_second * BURST_SECONDS
        self._stock = self._capacity
        self._filled_at = clock.monotonic()

    async def take(self, size_bytes: int) -> None:
        while size_bytes > SMALL_BYTES and self._fill() < 0:
            await self._clock.sleep(max(SHORTEST_WAIT_SECONDS, -self._stock / self.bytes_per_second))
        self._fill()
        self._stock -= size_bytes

    def _fill(self) -> float:
        now = self._clock.monotonic()
        self._stock = min(self._capacity, self._stock + (now - self._filled_at) * self.bytes_per_second)
        self._filled_at = now
        return self._stock
