"""One end of a simulated connection: the same promises as `dht.connection`, over simulated links."""

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dht.framing import PREFIX_BYTES, End, encode_prefix
from dht.interfaces import MAX_HEADER_BYTES, MAX_PAYLOAD_BYTES, Frame, Unreachable
from dht.simulated_link import PACKET_BYTES, SHORTEST_SECONDS
from protocols.identity import PeerId
from protocols.rejection import Reason, Rejected

if TYPE_CHECKING:
    from dht.simulated import SimulatedNetwork

WINDOW_BYTES = 4 * 1024 * 1024
"""A sender waits while this much of what it sent has not been received; one frame may always go."""
LINGER_SECONDS = 5.0
STALL_SECONDS = 5.0
"""How long it takes until both sides notice that messages no longer pass."""


@dataclass(slots=True)
class Traffic:
    """Frames, and their bytes with what frames them."""

    frames: int = 0
    size_bytes: int = 0


class SimulatedConnection:
    """Made in pairs by the network; `other` is the end at the other peer, until nothing can pass between them any more:
    a pair that kept each other would stay, with all that it holds, until Python looks for cycles."""

    other: "SimulatedConnection | None" = None

    def __init__(self, network: "SimulatedNetwork", local: PeerId, remote: PeerId, traffic: Traffic) -> None:
        """`traffic`: where what arrives is counted."""
        self.local = local
        self.remote = remote
        self._traffic = traffic
        self._network = network
        self._loop = asyncio.get_running_loop()
        self._max_payload_bytes, self._max_header_bytes = MAX_PAYLOAD_BYTES, MAX_HEADER_BYTES
        self._inbox: deque[tuple[Frame | End, int]] = deque()
        self._held: deque[tuple[Frame | End, int]] = deque()
        self._readable, self._sendable = asyncio.Event(), asyncio.Event()
        self._unreceived_bytes = 0
        self._crossing: deque[_Crossing] = deque()
        """What has been sent and has not arrived, in the order in which it is to."""
        self._stalled = False
        """Something of ours was lost: what follows it cannot arrive either."""
        self._broken = False
        self._closed = False
        self._ended = False
        self._nobody_listens = False
        self._lingering: asyncio.TimerHandle | None = None
        self._lingered = False
        """It was closed, and nobody will answer what comes for it."""

    # ── for its user ──

    def begin_frames(self, max_payload_bytes: int, max_header_bytes: int) -> None:
        self._max_payload_bytes, self._max_header_bytes = max_payload_bytes, max_header_bytes

    async def send(self, frame: Frame) -> None:
        prefix, payload = encode_prefix(frame)
        size = len(prefix) + len(payload)
        while self._unreceived_bytes and self._unreceived_bytes + size > WINDOW_BYTES and self._can_send:
            await _next(self._sendable)
        if not self._can_send:
            raise Unreachable("the stream is closed or broken")
        self._unreceived_bytes += size
        crossing = self._transmit(Frame(frame.header, bytes(payload)), size)
        while not (crossing.departed or self._broken):
            await _next(self._sendable)
        if self._broken:
            raise Unreachable("the stream broke")

    async def receive(self) -> Frame | None:
        while not self._inbox and self._usable:
            await _next(self._readable)
        if self._closed or not self._inbox:
            raise Unreachable("the stream is closed or broken")
        item, size = self._inbox[0]
        if not isinstance(item, Frame):
            return None
        if len(item.payload) > self._max_payload_bytes or len(item.header) > self._max_header_bytes:
            raise Rejected(
                Reason.OVERSIZED,
                f"a frame of {len(item.header)} + {len(item.payload)} bytes exceeds "
                f"{self._max_header_bytes} + {self._max_payload_bytes}",
            )
        self._inbox.popleft()
        self._tell_received(size)
        return item

    @property
    def intact(self) -> bool:
        return self._can_send and not self._inbox

    def end(self) -> None:
        if self._can_send and not self._ended:
            self._ended = True
            self._transmit(End.OF_STREAM, PREFIX_BYTES)

    def close(self) -> None:
        if self._closed:
            return
        if self.other is None or not self.other._closed:  # nobody is left to whom an end says anything
            self.end()
        self._closed = True
        for _, size in self._inbox:
            self._tell_received(size)
        self._wake()
        self._linger()

    def abort(self) -> None:
        if not self._closed:
            self._closed = True
            self.break_both(self._network.latency(self.local, self.remote))

    # ── for the network ──

    def break_both(self, delay_seconds: float = 0.0) -> None:
        """Breaks this end now, and the other one after the delay."""
        other = self.other
        self._network.forget(self)
        self._break()
        if other is not None:
            self._loop.call_later(delay_seconds, other._break)

    def release_held(self) -> None:
        """The peers can reach each other again: what was held back arrives."""
        while self._held:
            self._put(*self._held.popleft())

    def break_if_parted(self) -> None:
        if self._network.parted(self.local, self.remote):
            self.break_both()

    # ── between the two ends ──

    @property
    def _usable(self) -> bool:
        return not (self._broken or self._closed)

    @property
    def _can_send(self) -> bool:
        return self._usable and not self._nobody_listens

    def _wake(self) -> None:
        """Nothing will come any more, or go."""
        self._readable.set()
        self._sendable.set()

    def _transmit(self, item: Frame | End, size: int) -> "_Crossing":
        """Sends towards the other end."""
        crossing = _Crossing(self, item, size)
        if not self._stalled:
            self._crossing.append(crossing)
            if self._network.loses(self.local, self.remote):
                self._stalled = True
                self._loop.call_later(STALL_SECONDS, self.break_both)
        crossing.begin(lost=self._stalled)
        return crossing

    def _departed(self) -> None:
        self._sendable.set()

    def _arrived(self) -> None:
        """Something is across; it arrives behind all that was sent before it."""
        while self._crossing and self._crossing[0].arrived:
            crossing = self._crossing.popleft()
            assert self.other is not None, "as long as something is on its way"
            self.other._arrive(crossing.item, crossing.size)

    def _arrive(self, item: Frame | End, size: int) -> None:
        if self._held or self._network.parted(self.local, self.remote):
            self._held.append((item, size))
        else:
            self._put(item, size)

    def _put(self, item: Frame | End, size: int) -> None:
        self._network.record(self._loop.time(), self.remote, self.local, size)
        self._traffic.frames += 1
        self._traffic.size_bytes += size
        if self._broken:
            return
        if self._closed:
            self._tell_received(size)
            return
        self._inbox.append((item, size))
        self._readable.set()

    def _tell_received(self, size: int) -> None:
        if self.other is not None:
            self.other._received(size)

    def _received(self, size: int) -> None:
        self._unreceived_bytes -= size
        self._sendable.set()

    def _linger(self) -> None:
        """Until nothing more can come."""
        other = self.other
        if other is None:
            return
        if other._closed and not (self._crossing or other._crossing):
            other._stop_lingering()
            self._stop_lingering()
        else:
            self._lingering = self._loop.call_later(LINGER_SECONDS, self._stop_lingering)

    def _stop_lingering(self) -> None:
        """What was sent still arrives; what the other side sends from now on does not."""
        if self._lingering is not None:
            self._lingering.cancel()
        other = self.other
        if other is None:
            return
        if other._closed:
            self._network.forget(self)
        other._nobody_listens = True
        other._wake()
        self._lingered = True
        self._part()

    def _break(self) -> None:
        self._broken = True
        self._crossing.clear()
        self._network.drop(self)
        self._wake()
        self._part()

    @property
    def _done(self) -> bool:
        """Whether nothing of it will arrive any more, and nothing more can be sent."""
        return self._broken or (self._lingered and not self._crossing)

    def _part(self) -> None:
        """The two ends forget each other, once both are done."""
        other = self.other
        if other is not None and self._done and other._done:
            self.other = other.other = None


class _Crossing:
    """One message on its way: through the sender's upload and the receiver's download, both at once.

    One packet is there when it has passed the one after the other. Of what is longer the first bytes arrive while the
    last have not left, so it is there when the slower of the two has passed it.
    """

    def __init__(self, connection: SimulatedConnection, item: Frame | End, size: int) -> None:
        self.item, self.size = item, size
        self.departed = self.arrived = False
        self._connection = connection
        self._passed = 0

    def begin(self, *, lost: bool) -> None:
        """`lost`: it leaves, and never arrives."""
        connection = self._connection
        self._upload, self._download, self._latency = connection._network.way(connection.local, connection.remote)
        if lost:
            self._upload.enter(connection, self.size, self._depart)
        elif self.size <= PACKET_BYTES:
            now = connection._loop.time()
            self.departed = True
            reaches_at = self._upload.packet(self.size, now) + self._latency
            connection._loop.call_at(reaches_at + self._download.seconds(self.size), self._reach)
        else:
            self._upload.enter(connection, self.size, self._depart_and_follow, self._lead)

    def _reach(self) -> None:
        now = self._connection._loop.time()
        passes_at = self._download.packet(self.size, now - self._download.seconds(self.size))
        if passes_at > now + SHORTEST_SECONDS:
            self._connection._loop.call_at(passes_at, self._arrive)
        else:
            self._arrive()

    def _lead(self) -> None:
        self._connection._loop.call_later(self._latency, self._enter_download)

    def _enter_download(self) -> None:
        if not self._connection._broken:
            self._download.enter(self._connection, self.size, self._pass_one)

    def _depart_and_follow(self) -> None:
        self._depart()
        self._connection._loop.call_later(self._latency, self._pass_one)

    def _depart(self) -> None:
        self.departed = True
        self._connection._departed()

    def _pass_one(self) -> None:
        """Of two: the last byte has come as far as the download, and the download has served as many."""
        self._passed += 1
        if self._passed == 2:
            self._arrive()

    def _arrive(self) -> None:
        self.arrived = True
        self._connection._arrived()


async def _next(change: asyncio.Event) -> None:
    change.clear()
    await change.wait()
