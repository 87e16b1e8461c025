"""A member that keeps to the protocol until it dies, as by kill -9, at a chosen point of a chosen epoch."""

import asyncio
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Any

from dht.interfaces import Frame, Stream, StreamHandler, Transport
from dht.wrapped_transport import WrappedStream, WrappedTransport
from peer.learner import Learner
from peer.participant import Participant
from peer.rounds.exchange import PART_KIND
from peer.rounds.post import MAX_MESSAGE_BYTES, ROUND_KIND
from protocols.identity import PeerId
from protocols.message import Message
from protocols.round.events import Trained
from protocols.round.messages import ROUND_MESSAGES, Done, Prepared
from protocols.signed import Signed, open_signed, signed_run_and_kind
from protocols.state import ModelState
from protocols.vectors import Vector


class Point(StrEnum):
    """What a member has just done, or is about to do, when it dies."""

    UNCOMMITTED = "its training is over, and its update not committed to"
    SENT = "it has sent a chunk of its update"
    RECEIVED = "it has read a chunk of a result"
    SERVED = "it has sent a chunk of the result that it reduces"
    VOTED = "its vote has arrived at the leader; a leader: it has the votes, and has told nobody"
    DECIDED = "as the leader it has told one other member what is decided"


class Fate:
    """Counts how often a point of the fatal epoch is come to, and strikes at the last time."""

    def __init__(self, point: Point, count: int, strike: Callable[[], None]) -> None:
        self.epoch: int | None = None
        """The fatal one; None until it is chosen."""
        self.struck = asyncio.Event()
        self._point, self._left, self._strike = point, count, strike

    def awaits(self, point: Point, epoch: int) -> bool:
        return (point, epoch) == (self._point, self.epoch) and not self.struck.is_set()

    async def come_to(self, point: Point, epoch: int) -> None:
        """Returns, unless this is the end."""
        if not self.awaits(point, epoch):
            return
        self._left -= 1
        if not self._left:
            self.struck.set()
            self._strike()
            await never()


async def never() -> None:
    await asyncio.Event().wait()


class Mortal(Participant):
    """Dies of its fate; `mortal` makes it."""

    def __init__(self, fate: Fate, *, transport: Transport, learner: Learner, **given: Any) -> None:
        super().__init__(
            transport=MortalTransport(transport, fate, lambda: self.state.epoch),
            learner=MortalLearner(learner, fate),
            **given,
        )


def mortal(fate: Fate) -> Callable[..., Participant]:
    """To be given to `SimulatedSwarm.start` as `make`."""
    return lambda **given: Mortal(fate, **given)


class MortalLearner(Learner):
    def __init__(self, learner: Learner, fate: Fate) -> None:
        self._learner, self._fate = learner, fate
        self._epoch = 0
        self.samples_per_second = learner.samples_per_second

    async def begin(self, state: ModelState) -> None:
        self._epoch = state.epoch
        await self._learner.begin(state)

    async def step(self) -> Trained:
        return await self._learner.step()

    async def update(self) -> tuple[Vector, int] | None:
        await self._fate.come_to(Point.UNCOMMITTED, self._epoch)
        return await self._learner.update()

    async def evaluate(self, state: ModelState) -> dict[str, float]:
        return await self._learner.evaluate(state)


class MortalTransport(WrappedTransport):
    def __init__(self, transport: Transport, fate: Fate, epoch: Callable[[], int]) -> None:
        """`epoch`: which one is being played."""
        super().__init__(transport)
        self._fate, self._epoch = fate, epoch
        self._telling = False

    async def request(self, peer: PeerId, kind: str, body: bytes, timeout_seconds: float) -> bytes:
        statement = _round_message(body) if kind == ROUND_KIND else None
        if statement is None or statement.sender != self.peer_id:
            return await super().request(peer, kind, body, timeout_seconds)
        if isinstance(statement.body, Done):
            await self._fate.come_to(Point.VOTED, statement.epoch)
            if self._fate.awaits(Point.DECIDED, statement.epoch):
                if self._telling:
                    await never()  # it dies before it tells a second one
                self._telling = True
        answer = await super().request(peer, kind, body, timeout_seconds)
        if isinstance(statement.body, Prepared):
            await self._fate.come_to(Point.VOTED, statement.epoch)
        if isinstance(statement.body, Done):
            await self._fate.come_to(Point.DECIDED, statement.epoch)
        return answer

    async def open_stream(self, peer: PeerId, kind: str) -> Stream:
        stream = await super().open_stream(peer, kind)
        if kind != PART_KIND:
            return stream
        return MortalStream(stream, self._come_to(Point.SENT), self._come_to(Point.RECEIVED))

    async def serve_streams(self, kind: str, handler: StreamHandler, *limits: int) -> None:
        if kind != PART_KIND:
            await super().serve_streams(kind, handler, *limits)
            return

        def serve(stream: Stream) -> Awaitable[None]:
            return handler(MortalStream(stream, self._come_to(Point.SERVED), _nothing_happens))

        await super().serve_streams(kind, serve, *limits)

    def _come_to(self, point: Point) -> Callable[[], Awaitable[None]]:
        return lambda: self._fate.come_to(point, self._epoch())


class MortalStream(WrappedStream):
    """Of chunks: `sent` and `received` are awaited after each of them."""

    def __init__(
        self, stream: Stream, sent: Callable[[], Awaitable[None]], received: Callable[[], Awaitable[None]]
    ) -> None:
        super().__init__(stream)
        self._sent, self._received = sent, received

    async def send(self, frame: Frame) -> None:
        await super().send(frame)
        if frame.payload and frame.header:
            await self._sent()

    async def receive(self) -> Frame | None:
        frame = await super().receive()
        if frame is not None and frame.payload and frame.header:
            await self._received()
        return frame


async def _nothing_happens() -> None:
    pass


def _round_message(wire: bytes) -> Signed[Message]:
    run, kind = signed_run_and_kind(wire, MAX_MESSAGE_BYTES)
    return open_signed(wire, ROUND_MESSAGES[kind], run=run)
