"""Memory for incoming frames that is used again: fresh memory costs a page fault for every 4 KiB of it."""

from collections import deque

SMALLEST_BYTES = 64 * 1024
"""Below, Python's allocator does as well."""
POOL_BYTES = 32 * 1024 * 1024


class ReceiveBuffers:
    """Hands out a buffer again once there is no view of it any more: no frame, no array made of one.

    Nobody gives buffers back. At most POOL_BYTES are remembered; those remembered longest are let go first, and stay
    with whoever uses them.
    """

    def __init__(self) -> None:
        self._buffers: deque[bytearray] = deque()
        self._bytes = 0

    def take(self, size: int) -> bytearray:
        """A buffer of exactly `size` bytes, with anything in it; taken for as long as there are views of it."""
        if size < SMALLEST_BYTES:
            return bytearray(size)
        for buffer in self._buffers:
            if len(buffer) == size and _without_views(buffer):
                return buffer
        taken = bytearray(size)
        self._buffers.append(taken)
        self._bytes += size
        while self._bytes > POOL_BYTES:
            self._bytes -= len(self._buffers.popleft())
        return taken


def _without_views(buffer: bytearray) -> bool:
    try:
        buffer.append(0)  # Python refuses to resize what somebody has a view of
    except BufferError:
        return False
    buffer.pop()
    return True
