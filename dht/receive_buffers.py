"""Memory for incoming frames that is used again: fresh memory costs a page fault for every 4 KiB of it."""

from collections import deque

SMALLEST_BYTES = 64 * 1024
"""Below, Python's allocator does as well."""
SPARE_BYTES = 32 * 1024 * 1024
MOST_BUFFERS = 4096


class ReceiveBuffers:
    """Hands out a buffer again once there is no view of it any more: no frame, no array made of one.

    Nobody gives buffers back: those that are in use are remembered, MOST_BUFFERS at most. Of those that are not,
    SPARE_BYTES stay, or as much as is in use, for what is held from one round to the next comes again.
    """

    def __init__(self) -> None:
        self._buffers: deque[bytearray] = deque()
        """Those handed out last come last."""

    def take(self, size: int) -> bytearray:
        """A buffer of exactly `size` bytes, with anything in it; taken for as long as there are views of it."""
        if size < SMALLEST_BYTES:
            return bytearray(size)
        for _ in range(len(self._buffers)):
            self._buffers.rotate(-1)
            if len(self._buffers[-1]) == size and _without_views(self._buffers[-1]):
                return self._buffers[-1]
        self._let_go()
        taken = bytearray(size + 1)  # with room for what `_without_views` appends, or Python would copy it all
        taken.pop()
        self._buffers.append(taken)
        return taken

    def _let_go(self) -> None:
        """Of what is spare, those that were handed out longest ago."""
        spare = {index for index, buffer in enumerate(self._buffers) if _without_views(buffer)}
        sizes = [len(buffer) for buffer in self._buffers]
        spare_bytes = sum(sizes[index] for index in spare)
        most = max(SPARE_BYTES, sum(sizes) - spare_bytes)
        kept: deque[bytearray] = deque(maxlen=MOST_BUFFERS - 1)
        for index, buffer in enumerate(self._buffers):
            if index in spare and spare_bytes > most:
                spare_bytes -= sizes[index]
            else:
                kept.append(buffer)
        self._buffers = kept


def _without_views(buffer: bytearray) -> bool:
    try:
        buffer.append(0)  # Python refuses to resize what somebody has a view of
    except BufferError:
        return False
    buffer.pop()
    return True
