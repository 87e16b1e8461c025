"""What the rest of the daemon knows of a network: `Transport`, `Stream` and `Records`.

Two implementations: libp2p (`dht.libp2p`) and a simulated network under a virtual clock (`dht.simulated`). Both pass
`tests/dht/test_conformance.py`; everything above runs unchanged on either.
"""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from protocols.identity import PeerId
from protocols.signed import Signed

MAX_HEADER_BYTES = 1024 * 1024
MAX_PAYLOAD_BYTES = 8 * 1024 * 1024
MAX_REQUEST_BYTES = 1024 * 1024
MAX_STREAMS_PER_PEER = 64


class TransportError(Exception):
    """An exchange with another peer failed; the message says with whom and why."""


class Unreachable(TransportError):
    """No connection to the peer could be made, or it broke."""


class Refused(TransportError):
    """The peer answered, and said no; `reason` is its word."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class TimedOut(TransportError):
    """The peer did not answer in time."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a stream: a small header (encoded by the sender) and raw bytes, which are not copied."""

    header: bytes = b""
    payload: bytes | bytearray | memoryview = b""

    @property
    def size_bytes(self) -> int:
        return len(self.header) + memoryview(self.payload).nbytes


class Clock(ABC):
    """Time as the peer sees it; virtual in a simulation."""

    @abstractmethod
    def monotonic(self) -> float:
        """Seconds since some moment."""

    @abstractmethod
    def wall(self) -> float:
        """Unix seconds."""

    @abstractmethod
    async def sleep(self, seconds: float) -> None: ...


class Stream(ABC):
    """A two-way sequence of frames with `peer`, with back-pressure; ends when either side closes or breaks it."""

    peer: PeerId

    @abstractmethod
    async def send(self, frame: Frame) -> None:
        """Returns when the network has taken the frame, or nearly: there is room for the next. Raises Unreachable."""

    @abstractmethod
    async def receive(self) -> Frame | None:
        """The next frame, None when the other side has closed in order.

        Raises Unreachable when the stream broke, Rejected (oversized, malformed) for a bad frame.
        """

    @abstractmethod
    async def close(self) -> None:
        """Closes in order: what was sent still arrives."""

    @abstractmethod
    def abort(self) -> None:
        """Breaks the stream at once; the other side sees Unreachable or the end."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            await self.close()
        else:
            self.abort()


RequestHandler = Callable[[PeerId, bytes], Awaitable[bytes]]
"""(who asks, body) → answer. Raising Rejected sends the peer a `Refused` with its reason."""
StreamHandler = Callable[[Stream], Awaitable[None]]
"""Serves one incoming stream; the stream is closed when it returns, aborted when it raises."""
OnRejected = Callable[[PeerId, str, str], None]
"""(who, reason, message): counts and charges a refusal."""


class Transport(ABC):
    """Requests and streams between peers; the other side's PeerID is authenticated."""

    peer_id: PeerId
    clock: Clock

    @abstractmethod
    async def request(self, peer: PeerId, kind: str, body: bytes, timeout_seconds: float) -> bytes:
        """Asks `peer` and returns its answer. Raises Unreachable, TimedOut or Refused."""

    @abstractmethod
    async def open_stream(self, peer: PeerId, kind: str) -> Stream:
        """Raises Unreachable or TimedOut."""

    @abstractmethod
    async def serve_requests(
        self, kind: str, handler: RequestHandler, limit_bytes: int = MAX_REQUEST_BYTES
    ) -> None: ...

    @abstractmethod
    async def serve_streams(self, kind: str, handler: StreamHandler, limit_bytes: int = MAX_PAYLOAD_BYTES) -> None:
        """`limit_bytes`: of the header and of the payload of a frame that comes in."""

    @abstractmethod
    async def connect(self, peer: PeerId, addresses: Sequence[str]) -> None:
        """Makes `peer` reachable at one of its multiaddrs. Raises Unreachable."""

    @abstractmethod
    def remember(self, peer: PeerId, addresses: Sequence[str]) -> None:
        """Where `peer` says that it can be reached, for when there is no connection to it any more."""

    @abstractmethod
    def reject(self, peer: PeerId, reason: str, message: str) -> None:
        """Counts bad input that came from `peer` in an answer, and charges it as if it had come in a request."""

    @abstractmethod
    def refuses(self, peer: PeerId) -> bool:
        """Whether nothing of what `peer` asks is served now: it is banned, or has sent too much bad input."""

    @abstractmethod
    def ban(self, peer: PeerId, why: str) -> None:
        """Disconnects `peer`, and refuses all that it asks for from now on."""

    @abstractmethod
    async def in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Runs heavy work off the event loop (at once, in zero virtual time, in a simulation)."""

    @abstractmethod
    async def close(self) -> None: ...


class Records(ABC):
    """The signed records of a run in the DHT: one per (kind, owner)."""

    @abstractmethod
    async def publish(self, record: Signed[Any], expires: float) -> bool:
        """Stores `record` under its run, kind and signer until `expires` (Unix seconds); False if no node took it."""

    @abstractmethod
    async def lookup(self, run: str, kind: str) -> list[Signed[Any]]:
        """All live records of that kind, each verified again here."""
