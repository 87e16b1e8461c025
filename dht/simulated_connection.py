"""One end of a simulated connection: the same promises as `dht.connection`, over simulated links."""

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from dht.framing import PREFIX_BYTES, End, encode_prefix
from dht.interfaces import MAX_HEADER_BYTES, MAX_PAYLOAD_BYTES, Frame, Unreachable
from protocols.identity import PeerId
from protocols.rejection import Reason, Rejected

if TYPE_CHECKING:
    from dht.simulated import SimulatedNetwork

WINDOW_BYTES = 4 * 1024 * 1024
"""A sender waits while this much of what it sent has not been received; one frame may always go."""
LINGER_SECONDS = 5.0
STALL_SECONDS = 5.0
"""How long it takes until both sides notice that messages no longer pass."""


class SimulatedConnection:
    """Made in pairs by the network; `other` is the end at the other peer."""

    other: "SimulatedConnection"

    def __init__(self, network: "SimulatedNetwork", local: PeerId, remote: PeerId) -> None:
        self.local = local
        self.remote = remote
        self._network = network
        self._loop = asyncio.get_running_loop()
        self._max_payload_bytes, self._max_header_bytes = MAX_PAYLOAD_BYTES, MAX_HEADER_BYTES
        self._inbox: deque[tuple[Frame | End, int]] = deque()
        self._held: deque[tuple[Frame | End, int]] = deque()
        self._changed = asyncio.Event()
        self._unreceived_bytes = 0
        self._last_arrival = 0.0
        self._stalled = False
        """Something of ours was lost: what follows it cannot arrive either."""
        self._broken = False
        self._closed = False
        self._ended = False
        self._nobody_listens = False

    # ── for its user ──

    def begin_frames(self, max_payload_bytes: int, max_header_bytes: int) -> None:
        self._max_payload_bytes, self._max_header_bytes = max_payload_bytes, max_header_bytes

    async def send(self, frame: Frame) -> None:
        prefix, payload = encode_prefix(frame)
        size = len(prefix) + len(payload)
        while self._unreceived_bytes and self._unreceived_bytes + size > WINDOW_BYTES and self._can_send:
            await self._change()
        if not self._can_send:
            raise Unreachable("the stream is closed or broken")
        self._unreceived_bytes += size
        departure = self._transmit(Frame(frame.header, bytes(payload)), size)
        await asyncio.sleep(max(0.0, departure - self._loop.time()))
        if self._broken:
            raise Unreachable("the stream broke")

    async def receive(self) -> Frame | None:
        while not self._inbox and self._usable:
            await self._change()
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
        self.other._received(size)
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
        self.end()
        self._closed = True
        for _, size in self._inbox:
            self.other._received(size)
        self._changed.set()
        self._loop.call_later(LINGER_SECONDS, self._stop_lingering)

    def abort(self) -> None:
        if not self._closed:
            self._closed = True
            self.break_both(self._network.latency(self.local, self.remote))

    # ── for the network ──

    def break_both(self, delay_seconds: float = 0.0) -> None:
        """Breaks this end now, and the other one after the delay."""
        self._break()
        self._network.forget(self)
        self._loop.call_later(delay_seconds, self.other._break)

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

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _transmit(self, item: Frame | End, size: int) -> float:
        """Sends towards the other end, and returns when the last byte has left."""
        passage = self._network.pass_through(self.local, self.remote, size)
        if self._stalled:
            return passage.departure
        if passage.lost:
            self._stalled = True
            self._loop.call_later(STALL_SECONDS, self.break_both)
        else:
            self._last_arrival = max(self._last_arrival, passage.arrival)
            self._loop.call_at(self._last_arrival, self.other._arrive, item, size)
        return passage.departure

    def _arrive(self, item: Frame | End, size: int) -> None:
        if self._held or self._network.parted(self.local, self.remote):
            self._held.append((item, size))
        else:
            self._put(item, size)

    def _put(self, item: Frame | End, size: int) -> None:
        self._network.record(self.remote, self.local, size)
        if self._broken:
            return
        if self._closed:
            self.other._received(size)
            return
        self._inbox.append((item, size))
        self._changed.set()

    def _received(self, size: int) -> None:
        self._unreceived_bytes -= size
        self._changed.set()

    def _stop_lingering(self) -> None:
        """What was sent still arrives; what the other side sends from now on does not."""
        if self.other._closed:
            self._network.forget(self)
        self.other._nobody_listens = True
        self.other._changed.set()

    def _break(self) -> None:
        self._broken = True
        self._changed.set()
