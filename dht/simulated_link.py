"""The links of a simulated network: of each peer one channel up and one down, shared fairly among what passes them.

A flow is one direction of one connection. A channel serves all flows that have something waiting at once and at equal
rates, which is what fair queueing comes to, and what the flows of TCP do on average ("generalized processor sharing",
Parekh & Gallager 1993). Kept as virtual time, the bytes that every waiting flow has been served, so whatever comes or
goes costs O(log flows). What fits into one packet goes before what waits, and takes its time from it, as the sparse
flows of fq_codel do (RFC 8290, §4.2).
"""

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from itertools import count

PACKET_BYTES = 1400
"""What is no longer travels alone."""
SHORTEST_SECONDS = 1e-9
"""What is left to serve for less than this is served: below it floating-point time may stand still."""


@dataclass(frozen=True, slots=True)
class Link:
    """How one peer is attached to the network."""

    upload_bytes_per_second: float = 12.5e6
    download_bytes_per_second: float = 12.5e6
    latency_seconds: float = 0.02
    """From the peer to the middle of the network, one way: half of what two such peers see."""
    jitter_seconds: float = 0.0
    """At most this is added to a message's latency, uniformly."""
    loss: float = 0.0
    """Probability that a message is lost so often that its stream breaks (TCP repeats what is lost once)."""
    region: str = ""
    """Where it is; between regions there may be more latency (`SimulatedNetwork`)."""


@dataclass(slots=True)
class _Load:
    """One message in a channel."""

    size_bytes: int
    on_begun: Callable[[], object]
    on_passed: Callable[[], object]


class Channel:
    """One direction of a link."""

    def __init__(self, bytes_per_second: float) -> None:
        self._rate = bytes_per_second
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[Hashable, deque[_Load]] = {}
        """By flow, what it has yet to pass; no flow is empty."""
        self._finishes: list[tuple[float, int, Hashable, _Load]] = []
        """A heap: at what virtual time the first message of each flow has passed."""
        self._numbers = count()
        self._served = 0.0
        """The virtual time: bytes that each flow has been served that has waited since the channel was idle."""
        self._counted_at = 0.0
        self._packets_until = 0.0
        """When the packets have passed that have come so far."""
        self._taken_seconds = 0.0
        """What packets still have to take from the flows."""
        self._timer: asyncio.TimerHandle | None = None

    def seconds(self, size_bytes: int) -> float:
        """That so much takes alone."""
        return size_bytes / self._rate

    def packet(self, size_bytes: int, came_at: float) -> float:
        """When a packet that has come then has passed."""
        seconds = self.seconds(size_bytes)
        self._packets_until = max(came_at, self._packets_until) + seconds
        if self._waiting:
            self._taken_seconds += seconds
        return self._packets_until

    def enter(
        self,
        flow: Hashable,
        size_bytes: int,
        on_passed: Callable[[], object],
        on_begun: Callable[[], object] = lambda: None,
    ) -> None:
        """A message, behind those of its flow. It is called back when its first byte passes, and when its last has."""
        now = self._loop.time()
        if self._waiting:
            self._count(now)
        else:
            self._served, self._counted_at = 0.0, now
            self._taken_seconds = max(0.0, self._packets_until - now)
        load = _Load(size_bytes, on_begun, on_passed)
        if flow in self._waiting:
            self._waiting[flow].append(load)
            return
        self._waiting[flow] = deque([load])
        self._begin(flow, load, self._served)
        self._schedule(now)

    def drop(self, flow: Hashable) -> None:
        """What of it has not passed never does."""
        if flow in self._waiting:
            now = self._loop.time()
            self._count(now)
            del self._waiting[flow]
            self._schedule(now)

    def _begin(self, flow: Hashable, load: _Load, since: float) -> None:
        heapq.heappush(self._finishes, (since + load.size_bytes, next(self._numbers), flow, load))
        load.on_begun()

    def _count(self, now: float) -> None:
        """Serves everybody up to now."""
        elapsed = now - self._counted_at
        taken = min(elapsed, self._taken_seconds)
        self._taken_seconds -= taken
        self._served += (elapsed - taken) * self._rate / len(self._waiting)
        self._counted_at = now

    def _seconds_left(self) -> float:
        """Until the next message has passed, if nothing else comes."""
        return self._taken_seconds + (self._finishes[0][0] - self._served) * len(self._waiting) / self._rate

    def _is_stale(self, flow: Hashable, load: _Load) -> bool:
        return flow not in self._waiting or self._waiting[flow][0] is not load

    def _schedule(self, now: float) -> None:
        """Wakes up when the next message passes. A timer that fires too early does no harm."""
        while self._finishes and self._is_stale(*self._finishes[0][2:]):
            heapq.heappop(self._finishes)
        if not self._finishes:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            return
        when = now + self._seconds_left()
        if self._timer is not None:
            if self._timer.when() <= when:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._pass)

    def _pass(self) -> None:
        self._timer = None
        now = self._loop.time()
        self._count(now)
        passed: list[_Load] = []
        while self._finishes and (self._is_stale(*self._finishes[0][2:]) or self._seconds_left() <= SHORTEST_SECONDS):
            finish, _, flow, load = heapq.heappop(self._finishes)
            if self._is_stale(flow, load):
                continue
            passed.append(load)
            queue = self._waiting[flow]
            queue.popleft()
            if queue:
                self._begin(flow, queue[0], finish)
            else:
                del self._waiting[flow]
        self._schedule(now)
        for load in passed:
            load.on_passed()


class Attachment:
    """A link in use."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.upload = Channel(link.upload_bytes_per_second)
        self.download = Channel(link.download_bytes_per_second)
