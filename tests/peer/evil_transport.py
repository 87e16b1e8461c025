"""The transport of a member that takes part as it should, but for what it puts on the wire."""

from collections.abc import Awaitable, Callable, Iterable

from dht.interfaces import Frame, Stream, StreamHandler, Transport
from dht.wrapped_transport import WrappedStream, WrappedTransport
from protocols.identity import PeerId

Tamper = Callable[[Frame], Iterable[Frame]]
"""What is sent instead of a frame."""


class EvilTransport(WrappedTransport):
    """Passes everything on; `sent` changes the frames of the streams it opens, `served` those of the ones it serves."""

    def __init__(
        self, transport: Transport, kind: str, *, sent: Tamper | None = None, served: Tamper | None = None
    ) -> None:
        super().__init__(transport)
        self._kind, self._sent, self._served = kind, sent, served

    async def open_stream(self, peer: PeerId, kind: str) -> Stream:
        stream = await super().open_stream(peer, kind)
        return EvilStream(stream, self._sent) if self._sent and kind == self._kind else stream

    async def serve_streams(self, kind: str, handler: StreamHandler, *limits: int) -> None:
        tamper = self._served
        if tamper is None or kind != self._kind:
            await super().serve_streams(kind, handler, *limits)
            return

        def evil(stream: Stream) -> Awaitable[None]:
            return handler(EvilStream(stream, tamper))

        await super().serve_streams(kind, evil, *limits)


class EvilStream(WrappedStream):
    def __init__(self, stream: Stream, tamper: Tamper) -> None:
        super().__init__(stream)
        self._tamper = tamper

    async def send(self, frame: Frame) -> None:
        for instead in self._tamper(frame):
            await super().send(instead)
