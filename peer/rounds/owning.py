"""The owner's end: takes the senders' chunks of one part, reduces them, and sends the results back as they come."""

import asyncio

from dht.interfaces import Clock, Frame, Stream, Transport, Unreachable
from peer.rounds.results import HeldPart, chunk_header, chunk_number
from peer.signal import Signal
from peer.tasks import beside
from protocols.awake import AwakeTime
from protocols.identity import PeerId
from protocols.rejection import Reason, Rejected
from protocols.round.deadlines import Timing, straggler_deadline
from protocols.round.messages import Contribution, PartResult, Result, commitment
from protocols.round.reduction import EncodedUpdate, PartReduction, ReducedChunk
from protocols.signed import Signer
from protocols.vectors import Vector

WINDOW_CHUNKS = 16
"""How far a sender may run ahead of the reduction; bounds the memory that a part takes."""
SHORTEST_WAIT_SECONDS = 0.001
"""A wait shorter than the clock's rounding would never end."""
LONGEST_WAIT_SECONDS = 1.0
LONGEST_GAP_SECONDS = 2 * LONGEST_WAIT_SECONDS
"""We look at the clock at least so often, as long as we run."""


class OwnedPart:
    """One attempt at one part, in one term."""

    def __init__(
        self,
        reduction: PartReduction,
        transport: Transport,
        signer: Signer,
        timing: Timing,
        address: tuple[int, int, int, int],
    ) -> None:
        """`address`: epoch, term, part and attempt."""
        self.reduction = reduction
        self.address = address
        self.held: HeldPart | None = None
        self.bytes_sent = self.bytes_received = 0
        self._transport, self._signer, self._timing = transport, signer, timing
        self._clock: Clock = transport.clock
        self._results: list[ReducedChunk] = []
        self._failed = False
        self._arrived = Signal()
        """A chunk has come, or a sender is not waited for any more."""
        self._reduced = Signal()
        """There is another result, or there will be none."""
        self._open: list[PeerId] = []
        """Whose streams are being served."""
        self._numbers = {member.peer: number for number, member in enumerate(reduction.members)}

    async def run(self, own: EncodedUpdate | None, values: Vector) -> HeldPart:
        """Reduces chunk after chunk; `own` is this member's update, `values` gets what the result decodes to.

        Raises Rejected when a chunk has no sender left.
        """
        part = self.reduction.part
        try:
            async with beside(self._take_own(own)):
                chunk = part.start
                while chunk < part.stop:
                    await self._await_senders(chunk)
                    stop = self._complete_until(chunk)
                    self._results += await self._transport.in_thread(self._reduce, chunk, stop, values)
                    self._reduced.notify()
                    chunk = stop
        except BaseException:
            self._failed = True
            self._reduced.notify()
            raise
        self.held = self._sign()
        self._reduced.notify()
        return self.held

    def _complete_until(self, chunk: int) -> int:
        """The first chunk after `chunk` that somebody still has to deliver."""
        stop = chunk + 1
        while stop < self.reduction.part.stop and self.reduction.delivered(stop) and not self.reduction.missing(stop):
            stop += 1
        return stop

    def _reduce(self, start: int, stop: int, values: Vector) -> list[ReducedChunk]:
        """In a thread: several chunks at a time, for each time costs as much as a small chunk."""
        grid, first = self.reduction.grid, self.reduction.part.start
        return [self.reduction.reduce(chunk, values[grid.within(chunk, first)]) for chunk in range(start, stop)]

    async def serve(self, stream: Stream, contribution: Contribution) -> None:
        """One member's stream: takes its chunks, sends the results. Raises Rejected, Unreachable."""
        number = self._number(stream.peer)
        digests = self.reduction.open(number, contribution)
        self._arrived.notify()
        self._open.append(stream.peer)
        try:
            async with beside(self._take(stream, number, digests)):
                await self._send_results(stream)
        finally:
            self._open.remove(stream.peer)

    def forget(self, peer: PeerId) -> None:
        """`peer` cannot be reached: does not wait for a stream that it has not opened."""
        if peer in self._numbers and peer not in self._open:
            self._drop(self._numbers[peer])

    @property
    def missing_senders(self) -> int:
        """Contributors that are absent from some chunk."""
        wanted = sum(1 << n for n, member in enumerate(self.reduction.members) if member.weight > 0)
        absent = 0
        for reduced in self._results:
            absent |= wanted & ~reduced.included
        return absent.bit_count()

    # -- taking -------------------------------------------------------------------------------------------------------

    def _number(self, peer: PeerId) -> int:
        if peer not in self._numbers:
            raise Rejected(Reason.UNEXPECTED, f"{peer} is not in this group")
        return self._numbers[peer]

    async def _take_own(self, own: EncodedUpdate | None) -> None:
        if own is None:
            return
        number = self._number(self._transport.peer_id)
        while (chunk := self.reduction.next_chunk(number)) is not None:
            await self._window(chunk)
            self.reduction.add(number, chunk, own.chunks[chunk])
            self._arrived.notify()

    async def _take(self, stream: Stream, number: int, digests: tuple[bytes, ...]) -> None:
        try:
            while digests and (chunk := self.reduction.next_chunk(number)) is not None:
                await self._window(chunk)
                frame = await stream.receive()
                if frame is None:
                    break
                if chunk_number(frame.header) < chunk:
                    continue  # it starts over after its stream had broken
                if chunk_number(frame.header) > chunk:
                    raise Rejected(Reason.UNEXPECTED, f"chunk {chunk} was skipped")
                self.bytes_received += memoryview(frame.payload).nbytes
                self.reduction.check(chunk, frame.payload, digests[chunk])
                self.reduction.add(number, chunk, frame.payload)
                self._arrived.notify()
        except (Rejected, Unreachable):
            self._drop(number)
            raise
        if digests and self.reduction.next_chunk(number) is not None:
            self._drop(number)  # it has ended its stream early

    async def _window(self, chunk: int) -> None:
        while chunk - self.reduction.part.start >= len(self._results) + WINDOW_CHUNKS and not self._failed:
            await self._reduced.wait()

    def _drop(self, number: int) -> None:
        self.reduction.drop(number)
        self._arrived.notify()

    async def _await_senders(self, chunk: int) -> None:
        """Until all who are counted on have delivered `chunk`; stragglers are dropped at their deadline.

        Time in which we did not run is nobody's delay: what they have sent meanwhile is still to be read.
        """
        awake = AwakeTime(self._clock.monotonic(), LONGEST_GAP_SECONDS)
        began = awake.at(self._clock.monotonic())
        arrivals = [0.0] * len(self.reduction.delivered(chunk))
        while missing := self.reduction.missing(chunk):
            elapsed = awake.at(self._clock.monotonic()) - began
            delivered = len(self.reduction.delivered(chunk))
            arrivals += [elapsed] * (delivered - len(arrivals))
            remaining = straggler_deadline(arrivals, delivered + len(missing), self._timing) - elapsed
            if remaining <= 0:
                for number in missing:
                    self._drop(number)
                continue
            try:
                async with asyncio.timeout(min(max(remaining, SHORTEST_WAIT_SECONDS), LONGEST_WAIT_SECONDS)):
                    await self._arrived.wait()
            except TimeoutError:
                continue

    # -- giving -------------------------------------------------------------------------------------------------------

    async def _send_results(self, stream: Stream) -> None:
        sent = 0
        while True:
            while sent < len(self._results):
                payload = self._results[sent].payload
                await stream.send(Frame(chunk_header(self.reduction.part.start + sent), payload))
                self.bytes_sent += memoryview(payload).nbytes
                sent += 1
            if self.held is not None:
                await stream.send(Frame(b"", self.held.statement))
                return
            if self._failed:
                raise Rejected(Reason.UNEXPECTED, "this part could not be reduced here")
            await self._reduced.wait()

    def _sign(self) -> HeldPart:
        epoch, term, part, attempt = self.address
        digests = tuple(reduced.digest for reduced in self._results)
        included = tuple(reduced.included for reduced in self._results)
        statement = self._signer.sign(
            Result(term=term, part=part, attempt=attempt, chunks=digests, included=included), epoch
        )
        bounds = self.reduction.part
        result = PartResult(start=bounds.start, stop=bounds.stop, digest=commitment(digests))
        return HeldPart(result, tuple(reduced.payload for reduced in self._results), statement.wire)
