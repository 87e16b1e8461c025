"""How fast this peer can send, measured on its streams, and a limit on it that its user may set.

A burst is a time of sending without a pause. It tells two things. What no buffer on the way can have held, by the best
average between any two moments, the link can do at least: that counts at once. And more than all that was sent, by the
time that was spent waiting for room, it cannot do: where buffers may have held most of it, as those to many receivers
do, that is the better guess, for what is left without them is nearly nothing, and differs as much from peer to peer. A
guess counts by and by, and only where the burst was mostly spent waiting for room: to wait for what is to be sent, as
an owner waits for the chunks of a slow member, tells nothing about the link. Who only ever sends little is not
measured. The limit is a token bucket over all streams, requests and answers; who waits for tokens reads on but sends no
more, and so its own senders feel it. What it does not count: the DHT's messages, and what p2pd, TLS and TCP add, a few
percent.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Self

from dht.interfaces import Clock
from protocols.identity import PeerId

BUFFERED_BYTES = 1024 * 1024
"""To every receiver: what sockets and flow-control windows take at once, however slow the link is."""
FULL_SECONDS = 0.02
"""Once a frame has waited so long for room, there is none left in the buffers to its receiver."""
SAMPLE_BYTES = 512 * 1024
"""A burst with less than this beyond what is buffered tells nothing."""
SHORTEST_SECONDS = 0.1
"""What was sent in less time counts as if it had taken so long: buffers that had drained fill in no time."""
PAUSE_SECONDS = 0.25
"""After so long without sending, the next burst begins."""
SMOOTHING = 0.3
"""Weight of the newest burst's guess."""
TIGHT = 0.5
"""What the link can do at least is the guess where it is so much of what it can do at most."""
MARKS = 16
"""Moments of a burst from which its rate is taken, at most; two are at least as far apart as a sample."""
BURST_SECONDS = 0.25
"""So much of a second's allowance may be sent at once."""
SHORTEST_WAIT_SECONDS = 0.001
SMALL_BYTES = 16 * 1024
"""Frames up to here (messages, headers) do not wait for tokens, they only use them up."""


@dataclass(frozen=True, slots=True)
class _Mark:
    """A moment of a burst, what of it was sent or being sent by then, and to how many receivers no buffer had room."""

    moment: float
    begun_bytes: int = 0
    full: int = 0


@dataclass(slots=True)
class _Burst:
    """What was sent without a pause, and how long of it some frame waited for room."""

    began: float
    ended: float
    marks: deque[_Mark]
    receivers: set[PeerId] = field(default_factory=set)
    begun_bytes: int = 0
    sent_bytes: int = 0
    waited_seconds: float = 0.0
    at_least: float = 0.0
    """Bytes per second; 0 where too little was sent."""

    @classmethod
    def beginning(cls, now: float) -> Self:
        return cls(now, now, deque([_Mark(now)], maxlen=MARKS))

    def pass_to(self, now: float, *, waiting: bool) -> None:
        if waiting:
            self.waited_seconds += now - self.ended
        self.ended = now

    def sent(self, size_bytes: int, full: int, now: float) -> None:
        self.sent_bytes += size_bytes
        for mark in self.marks:
            room = BUFFERED_BYTES * (len(self.receivers) - mark.full)
            counted = self.sent_bytes - mark.begun_bytes - room
            if counted >= SAMPLE_BYTES:
                self.at_least = max(self.at_least, counted / max(now - mark.moment, SHORTEST_SECONDS))
        if self.begun_bytes - self.marks[-1].begun_bytes >= SAMPLE_BYTES:
            self.marks.append(_Mark(now, self.begun_bytes, full))

    @property
    def guess(self) -> float:
        """Bytes per second; 0 where nobody can say."""
        waited = self.waited_seconds
        if self.sent_bytes < SAMPLE_BYTES or waited < max(SHORTEST_SECONDS, 0.5 * (self.ended - self.began)):
            return 0.0
        at_most = self.sent_bytes / waited
        return self.at_least if self.at_least >= TIGHT * at_most else at_most


class _Rate:
    """The current burst, and what the earlier ones came to."""

    def __init__(self) -> None:
        self._earlier = 0.0
        self._burst = _Burst.beginning(float("-inf"))
        self._waiting: dict[object, tuple[PeerId, float]] = {}
        """The frames that are being sent: to whom, and since when."""

    def begin(self, frame: object, receiver: PeerId, size_bytes: int, now: float) -> None:
        if not self._waiting and now - self._burst.ended > PAUSE_SECONDS:
            self._earlier = self.bytes_per_second
            self._burst = _Burst.beginning(now)
        self._burst.pass_to(now, waiting=bool(self._waiting))
        self._burst.receivers.add(receiver)
        self._burst.begun_bytes += size_bytes
        self._waiting[frame] = receiver, now

    def end(self, frame: object, size_bytes: int, now: float, *, failed: bool) -> None:
        self._burst.pass_to(now, waiting=True)
        full = len({receiver for receiver, since in self._waiting.values() if now - since >= FULL_SECONDS})
        del self._waiting[frame]
        if failed:
            self._burst.begun_bytes -= size_bytes
        else:
            self._burst.sent(size_bytes, full, now)

    @property
    def bytes_per_second(self) -> float:
        earlier, at_least, guess = self._earlier, self._burst.at_least, self._burst.guess
        if not earlier:
            return guess or at_least
        known = max(earlier, at_least)
        if not guess:
            return known
        if guess > known:
            return known + SMOOTHING * (guess - known)
        return 1 / ((1 - SMOOTHING) / known + SMOOTHING / guess)  # a mean of times: who has become slow knows it soon


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

    @contextmanager
    def sending(self, peer: PeerId, size_bytes: int) -> Iterator[None]:
        """Around the sending of a frame; the frame is gone where this ends without an error."""
        frame, failed = object(), True
        self._total.begin(frame, peer, size_bytes, self._clock.monotonic())
        try:
            yield
            failed = False
        finally:
            self._total.end(frame, size_bytes, self._clock.monotonic(), failed=failed)


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
