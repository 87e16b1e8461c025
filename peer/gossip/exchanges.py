"""Exchanges of models with other peers, from both ends; `protocols/gossip/messages.py` says who says what when.

Nobody waits for another while it keeps others waiting: a callee waits a little for room, and says when it has none; a
caller takes room only when the callee has. What happens when one of them breaks off stands in the head of
`protocols/gossip/commitment.py`.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

from dht.border import Border
from dht.interfaces import Frame, Stream, TimedOut, Transport, TransportError
from peer.gossip.doubts import Doubts
from peer.gossip.models import (
    BUSY,
    MODEL_FRAME_BYTES,
    Busy,
    Encoded,
    PeerBusy,
    encoded_bytes,
    receive_chunks,
    receive_message,
    send_model,
)
from peer.gossip.patience import MAX_PEERS, Patience
from peer.streams import next_request
from peer.tasks import beside
from protocols.admission import Admission
from protocols.codecs import Codec
from protocols.gossip.commitment import MOST_IN_DOUBT, REMEMBERED
from protocols.gossip.messages import Commit, Model, Offer, Prepared, exchange_digest, offer_digest
from protocols.gossip.mixing import length, pairwise, share_of_other
from protocols.identity import PeerId
from protocols.rejection import Reason, Rejected
from protocols.signed import BodyT, ReplayGuard, Signed, Signer, open_signed
from protocols.vectors import Vector

GOSSIP_KIND = "gossip"
ASKERS_AT_ONCE = 8
"""Peers who only ask for our model."""
SHORTEST_WAIT_SECONDS = 0.05


class Host(Protocol):
    """The peer whose exchanges these are."""

    @property
    def epoch(self) -> int: ...

    @property
    def samples(self) -> int:
        """That it adds in an epoch: its weight."""

    @property
    def layers(self) -> Sequence[slice]:
        """Of its model, where averages keep their variance."""

    async def model(self) -> Vector:
        """A copy of its model as it is. Raises Busy while it has none to give."""

    async def shift(self, shift: Vector) -> None:
        """Adds a vector to its model."""

    def met(self, peer: PeerId, epoch: int) -> None:
        """`peer` has shown that it has come to that epoch."""

    def measured(self, distance: float, own_length: float) -> None:
        """So far apart were our model and another's before they were mixed, and so long is ours."""

    def is_member(self, peer: PeerId) -> bool:
        """Whether `peer` is heard of."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a run's exchanges keep to."""

    run: str
    elements: int
    """Of a model."""
    codec: Codec
    degree: int
    """Exchanges of a peer in an epoch, and at the same time."""
    most_samples: int
    """Of one peer in an epoch."""
    only_asks: bool
    """Whether neighbours are asked for their models, and nobody shifts another's."""


@dataclass(slots=True)
class Counts:
    """Of all exchanges, called and calling."""

    completed: int = 0
    failed: int = 0
    busy: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    last_peer: PeerId | None = None


class Exchanges:
    def __init__(
        self, host: Host, transport: Transport, signer: Signer, terms: Terms, admission: Admission, border: Border
    ) -> None:
        self.counts = Counts()
        self.patience = Patience()
        self.doubts = Doubts(transport, signer, border, host.shift, host.is_member)
        self._host, self._transport, self._signer = host, transport, signer
        self._terms, self._admission = terms, admission
        self._replays = ReplayGuard()
        self._rooms = asyncio.Semaphore(terms.degree)
        """Exchanges that may shift our model, at the same time."""
        self._callers: set[PeerId] = set()
        """Whose exchanges with us are under way."""
        self._askers: set[PeerId] = set()
        """Whom we show our model, ASKERS_AT_ONCE at most."""
        self._shown: tuple[int, Encoded] | None = None
        """For askers: our model as it was in some epoch."""

    async def start(self) -> None:
        """From now on others are answered."""
        await self.doubts.start()
        await self._transport.serve_streams(GOSSIP_KIND, self._serve, MODEL_FRAME_BYTES)

    @asynccontextmanager
    async def at_rest(self, seconds: float) -> AsyncIterator[None]:
        """Once no exchange is under way, or after so long; none begins meanwhile."""
        taken = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while taken < self._terms.degree:
                    await self._rooms.acquire()
                    taken += 1
        try:
            yield
        finally:
            for _ in range(taken):
                self._rooms.release()

    def queues(self) -> Iterator[tuple[str, int, int]]:
        """What it keeps of others: what it is, how many, and how many at most."""
        yield "shifts in doubt", self.doubts.in_doubt, MOST_IN_DOUBT + self._terms.degree
        yield "decisions", len(self.doubts.decisions), REMEMBERED
        yield "failing peers", len(self.patience), MAX_PEERS

    # -- calling ------------------------------------------------------------------------------------------------------

    async def mix_with(self, peer: PeerId) -> None:
        """One exchange. Raises Busy, TransportError, Rejected: nothing has changed then on either side."""
        async with self._attempt(peer):
            async with self._room(self._room_seconds):
                pass  # now it makes sense to ask; but room is not kept from those who call us meanwhile
            async with await self._transport.open_stream(peer, GOSSIP_KIND) as stream:
                offer, theirs = await self._offer(stream, only_asks=False)
                try:
                    async with self._room(0.0):
                        own = await self._own_model()
                        await self._mix(stream, offer, theirs, own)
                        return
                except Busy:
                    await stream.send(BUSY)
            raise Busy("our hands are full")

    async def _mix(self, stream: Stream, offer: Signed[Offer], theirs: Signed[Model], own: Encoded) -> None:
        exchange, shift = await self._be_prepared(stream, offer, theirs, own)
        if not self.doubts.decisions.commit(exchange):
            raise TimedOut(f"{stream.peer} has asked what became of the exchange before it was decided")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._host.shift(shift))
            tasks.create_task(self._say_commit(stream, exchange))

    async def ask(self, peer: PeerId) -> Vector:
        """The model of `peer`, as it is sent. Raises Busy, TransportError, Rejected."""
        async with self._attempt(peer), await self._transport.open_stream(peer, GOSSIP_KIND) as stream:
            _, theirs = await self._offer(stream, only_asks=True)
            async with _limit(self.patience.limit_seconds, peer):
                model = await self._receive(stream, theirs)
        return model

    async def _offer(self, stream: Stream, *, only_asks: bool) -> tuple[Signed[Offer], Signed[Model]]:
        """Our offer, and the head of the model with which the callee answers it."""
        offer = self._signer.sign(Offer(to=stream.peer, only_asks=only_asks), self._host.epoch)
        await stream.send(Frame(offer.wire))
        return offer, await self._read_head(stream, offer)

    async def _be_prepared(
        self, stream: Stream, offer: Signed[Offer], theirs: Signed[Model], own: Encoded
    ) -> tuple[bytes, Vector]:
        """The name of the exchange, and our shift, when the callee is prepared for its own."""
        ours = self._head(offer, own)
        exchange = exchange_digest(theirs, ours)
        decisions = self.doubts.decisions
        decisions.begin(exchange, stream.peer)
        try:
            async with _limit(self.patience.limit_seconds, stream.peer), beside(self._send(stream, ours, own)):
                values = await self._receive(stream, theirs)
                shift = await self._shift(own, ours, values, theirs)
                prepared = await self._hear(stream, Prepared)
                if prepared.body.exchange != exchange:
                    raise Rejected(Reason.UNEXPECTED, "prepared for another exchange")
        except BaseException:
            decisions.give_up(exchange)
            raise
        return exchange, shift

    async def _say_commit(self, stream: Stream, exchange: bytes) -> None:
        """Who does not hear it will ask."""
        commit = self._signer.sign(Commit(exchange=exchange), self._host.epoch)
        with suppress(TransportError):
            async with _limit(self.patience.silence_seconds, stream.peer):
                await stream.send(Frame(commit.wire))

    # -- called -------------------------------------------------------------------------------------------------------

    async def _serve(self, stream: Stream) -> None:
        frame = await next_request(stream)
        if frame is None:
            return
        self._admission.require(stream.peer, self._transport.clock.wall())
        offer = open_signed(frame.header, Offer, run=self._terms.run, sender=stream.peer)
        self._replays.admit(offer)
        if offer.body.to != self._transport.peer_id:
            raise Rejected(Reason.UNEXPECTED, "an offer to somebody else")
        if offer.body.only_asks != self._terms.only_asks:
            raise Rejected(Reason.UNEXPECTED, "this run mixes in another way")
        self._host.met(stream.peer, offer.epoch)
        try:
            if offer.body.only_asks:
                await self._show(stream, offer)
            else:
                await self._be_called(stream, offer)
        except PeerBusy:
            pass
        except Busy:
            self.counts.busy += 1
            await stream.send(BUSY)

    async def _show(self, stream: Stream, offer: Signed[Offer]) -> None:
        """Our model, to who only asks: as it was at some time in this epoch. To each once at a time."""
        peer = stream.peer
        if peer in self._askers or len(self._askers) >= ASKERS_AT_ONCE:
            raise Busy("not now")
        if not self.patience.may_call(peer, self._transport.clock.monotonic()):
            raise Busy("not now")
        self._askers.add(peer)
        try:
            async with self._remembered(peer):
                if self._shown is None or self._shown[0] != self._host.epoch:
                    self._shown = self._host.epoch, await self._own_model()
                _, own = self._shown
                async with _limit(self.patience.limit_seconds, peer):
                    await self._send(stream, self._head(offer, own), own)
        finally:
            self._askers.discard(peer)

    async def _be_called(self, stream: Stream, offer: Signed[Offer]) -> None:
        """One exchange of each caller at a time, or its shifts alone could be as many as may be in doubt."""
        peer = stream.peer
        if peer in self._callers or self.doubts.waits_for(peer) or self.doubts.too_many:
            raise Busy("not now")
        if not self.patience.may_call(peer, self._transport.clock.monotonic()):
            raise Busy("not now")
        self._callers.add(peer)
        try:
            await self._exchange(stream, offer)
        finally:
            self._callers.discard(peer)

    async def _exchange(self, stream: Stream, offer: Signed[Offer]) -> None:
        async with self._room(self._room_seconds), self._remembered(stream.peer):
            own = await self._own_model()
            async with self._attempt(stream.peer):
                exchange, shift = await self._prepare(stream, offer, own)
                self.doubts.prepare(exchange, shift)
                try:
                    await self._hear_commit(stream, exchange)
                except BaseException:
                    self.doubts.doubt(exchange, stream.peer)
                    raise
                await self.doubts.settle(exchange, committed=True)

    async def _prepare(self, stream: Stream, offer: Signed[Offer], own: Encoded) -> tuple[bytes, Vector]:
        """The name of the exchange, and our shift, when both have the other's model."""
        ours = self._head(offer, own)
        async with _limit(self.patience.limit_seconds, stream.peer), beside(self._send(stream, ours, own)) as sending:
            theirs = await self._read_head(stream, offer)
            values = await self._receive(stream, theirs)
            shift = await self._shift(own, ours, values, theirs)
            await sending
        return exchange_digest(ours, theirs), shift

    async def _hear_commit(self, stream: Stream, exchange: bytes) -> None:
        """Returns when the caller has decided for it. Raises TransportError, Rejected: then we do not know."""
        await stream.send(Frame(self._signer.sign(Prepared(exchange=exchange), self._host.epoch).wire))
        commit = await self._hear(stream, Commit)
        if commit.body.exchange != exchange:
            raise Rejected(Reason.UNEXPECTED, "the commit is for another exchange")

    # -- both ---------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _room(self, seconds: float) -> AsyncIterator[None]:
        """For one exchange. Raises Busy when there is none for so long."""
        try:
            async with asyncio.timeout(seconds):
                await self._rooms.acquire()
        except TimeoutError:
            raise Busy("our hands are full") from None
        try:
            yield
        finally:
            self._rooms.release()

    @asynccontextmanager
    async def _remembered(self, peer: PeerId) -> AsyncIterator[None]:
        """How long `peer`, who has called or asks, keeps what others want, too."""
        clock = self._transport.clock
        began = clock.monotonic()
        try:
            yield
        finally:
            now = clock.monotonic()
            self.patience.was_called(peer, now, now - began)

    @property
    def _room_seconds(self) -> float:
        """So long it is worth to wait for the exchanges under way to end."""
        return max(SHORTEST_WAIT_SECONDS, self.patience.usual_seconds)

    @asynccontextmanager
    async def _attempt(self, peer: PeerId) -> AsyncIterator[None]:
        """Keeps the accounts of an exchange."""
        clock = self._transport.clock
        began = clock.monotonic()
        try:
            yield
        except Busy:
            self.counts.busy += 1
            raise
        except (TransportError, Rejected):
            self.counts.failed += 1
            self.patience.failed(peer, clock.monotonic(), clock.monotonic() - began)
            raise
        self.counts.completed += 1
        self.counts.last_peer = peer
        self.patience.succeeded(peer, clock.monotonic() - began)

    async def _own_model(self) -> Encoded:
        encoded: Encoded = await self._transport.in_thread(Encoded.of, await self._host.model(), self._terms.codec)
        return encoded

    def _head(self, offer: Signed[Offer], own: Encoded) -> Signed[Model]:
        body = Model(offer=offer_digest(offer), samples=self._host.samples, chunks=own.update.digests)
        return self._signer.sign(body, self._host.epoch)

    async def _read_head(self, stream: Stream, offer: Signed[Offer]) -> Signed[Model]:
        """Raises PeerBusy, TransportError, Rejected."""
        head = await self._hear(stream, Model)
        if head.body.offer != offer_digest(offer):
            raise Rejected(Reason.UNEXPECTED, "the model belongs to another offer")
        if head.body.samples > self._terms.most_samples:
            raise Rejected(Reason.UNEXPECTED, f"{head.body.samples} samples in an epoch, more than one can have")
        self._host.met(head.sender, head.epoch)
        return head

    async def _hear(self, stream: Stream, kind: type[BodyT]) -> Signed[BodyT]:
        return await receive_message(stream, kind, self._terms.run, self.patience.silence_seconds)

    async def _send(self, stream: Stream, head: Signed[Model], own: Encoded) -> None:
        await send_model(stream, head, own)
        self.counts.bytes_sent += own.size_bytes

    async def _receive(self, stream: Stream, head: Signed[Model]) -> Vector:
        elements, codec = self._terms.elements, self._terms.codec
        silence_seconds = self.patience.silence_seconds
        values = await receive_chunks(stream, head.body.chunks, elements, codec, self._transport, silence_seconds)
        self.counts.bytes_received += encoded_bytes(elements, codec)
        return values

    async def _shift(self, own: Encoded, ours: Signed[Model], values: Vector, theirs: Signed[Model]) -> Vector:
        share = share_of_other(ours.body.samples, theirs.body.samples, self._terms.degree)
        shift: Vector
        shift, distance, own_length = await self._transport.in_thread(
            _met, own.values, values, share, self._host.layers
        )
        self._host.measured(distance, own_length)
        return shift


def _met(own: Vector, other: Vector, share: float, layers: Sequence[slice]) -> tuple[Vector, float, float]:
    """Blocking: our shift, how far apart the two are, and the length of ours."""
    shift, distance = pairwise(own, other, share, layers)
    return shift, distance, length(own)


@asynccontextmanager
async def _limit(seconds: float, peer: PeerId) -> AsyncIterator[None]:
    """Raises TimedOut."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise TimedOut(f"an exchange with {peer} takes longer than {seconds:.0f} s") from None
