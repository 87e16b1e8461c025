"""What is being received at once: so many works and bytes of one trainer, and so many bytes of all.

Works announce how large they are, and may then take their time. Who has no place left hears "busy", as of a full queue;
the answers that a trainer has not taken yet count as its own.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from dht.interfaces import Frame, Stream
from peer.swarm.tensor_frames import pass_over_payloads, receive_payloads
from protocols.identity import PeerId

MOST_WORKS_OF_ONE = 8
MOST_BYTES_OF_ONE = 64 * 1024 * 1024
MOST_BYTES = 256 * 1024 * 1024
"""A single work may be larger than either."""


class Receiving:
    def __init__(self) -> None:
        self._works: Counter[PeerId] = Counter()
        self._bytes: Counter[PeerId] = Counter()
        self._answers: Counter[PeerId] = Counter()
        """Bytes on their way back."""

    async def receive(self, stream: Stream, first: Frame, sizes: Sequence[int]) -> list[bytearray] | None:
        """As `receive_payloads`; None where there is no place: they have been read, and nothing of them was kept."""
        if not self._has_place(stream.peer, sum(sizes)):
            await pass_over_payloads(stream, first, sum(sizes))
            return None
        with self._place(stream.peer, sum(sizes)):
            return await receive_payloads(stream, first, sizes)

    @contextmanager
    def answering(self, trainer: PeerId, size_bytes: int) -> Iterator[None]:
        """While an answer is on its way."""
        self._answers[trainer] += size_bytes
        try:
            yield
        finally:
            self._answers[trainer] -= size_bytes
            if not self._answers[trainer]:
                del self._answers[trainer]

    @contextmanager
    def _place(self, trainer: PeerId, size_bytes: int) -> Iterator[None]:
        self._works[trainer] += 1
        self._bytes[trainer] += size_bytes
        try:
            yield
        finally:
            self._works[trainer] -= 1
            self._bytes[trainer] -= size_bytes
            if not self._works[trainer]:
                del self._works[trainer], self._bytes[trainer]

    def _has_place(self, trainer: PeerId, size_bytes: int) -> bool:
        if self._works[trainer] >= MOST_WORKS_OF_ONE:
            return False
        held = self._bytes[trainer] + self._answers[trainer]
        if held and held + size_bytes > MOST_BYTES_OF_ONE:
            return False
        return not self._works or self._bytes.total() + size_bytes <= MOST_BYTES
