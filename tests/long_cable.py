"""A cable on which every frame takes a while, for kernels without `netem`: `python long_cable.py NEAR FAR SECONDS`.

Makes two TAP devices in the network namespace where it runs, says `up`, and carries what goes into one out of the other
that much later, in order, until it is ended; the devices are gone with it. Needs root.
"""

import fcntl
import os
import select
import struct
import sys
import time
from collections import deque

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000
FRAME_BYTES = 65536


class Direction:
    """Frames from one device to the other."""

    def __init__(self, source: int, target: int, seconds: float) -> None:
        self._source, self._target, self._seconds = source, target, seconds
        self._under_way: deque[tuple[float, bytes]] = deque()

    @property
    def due(self) -> float:
        """When the next frame arrives."""
        return self._under_way[0][0] if self._under_way else float("inf")

    def take(self) -> None:
        """All that wait at the source."""
        while True:
            try:
                frame = os.read(self._source, FRAME_BYTES)
            except BlockingIOError:
                return
            self._under_way.append((time.monotonic() + self._seconds, frame))

    def deliver(self) -> None:
        """All whose time has come."""
        now = time.monotonic()
        while self.due <= now:
            os.write(self._target, self._under_way.popleft()[1])


def open_tap(name: str) -> int:
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH14x", name.encode(), IFF_TAP | IFF_NO_PI))
    return device


def carry(near: str, far: str, seconds: float) -> None:
    ends = open_tap(near), open_tap(far)
    print("up", flush=True)
    directions = {ends[0]: Direction(*ends, seconds), ends[1]: Direction(*reversed(ends), seconds)}
    while True:
        due = min(direction.due for direction in directions.values())
        wait = None if due == float("inf") else max(0.0, due - time.monotonic())
        arrived, _, _ = select.select(ends, (), (), wait)
        for end in arrived:
            directions[end].take()
        for direction in directions.values():
            direction.deliver()


if __name__ == "__main__":
    carry(sys.argv[1], sys.argv[2], float(sys.argv[3]))
