"""The owner's end: takes the senders' chunks of one part, reduces them, and sends the results back as they come."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from dht.interfaces import Clock, Frame, Stream, Transport, Unreachable
from peer.rounds.chunk_frames import SIGN_OF_LIFE, chunk_frames, chunks_of
from peer.rounds.exchange import PartAddress, sign_contribution
from peer.rounds.results import HeldPart
from peer.signal import Signal
from peer.tasks import beside
from protocols.awake import AwakeTime
from protocols.identity import PeerId
from protocols.rejection import Reason, Rejected
from protocols.round.deadlines import Timing, straggler_deadline
from protocols.round.messages import Contribution, Observed, PartResult, Result, commitment, weighing_digest
from protocols.round.pace import Paces
from protocols.round.reduction import EncodedUpdate, PartReduction, ReducedChunk
from protocols.signed import Signed, Signer
from protocols.suspension import Fault
from protocols.vectors import Vector

FAST_LINE = 125e6
"""Bytes per second: a gigabit."""
WINDOW_CHUNKS = 8
"""How far a sender may run ahead of the reduction; bounds the memory that a part takes."""
SHORTEST_WAIT_SECONDS = 0.001
"""A wait shorter than the clock's rounding would never end."""
SLACK_STEP_SECONDS = 0.02
"""What is left to a sender does not shrink all the time, so it is looked at again."""
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
        address: PartAddress,
    ) -> None:
        self.reduction = reduction
        self.contributions: dict[int, bytes] = {}
        """Member number → wire bytes of what it has signed for this part."""
        self.address = address
        self.held: HeldPart | None = None
        self.bytes_sent = self.bytes_received = 0
        self.faults: dict[PeerId, Fault] = {}
        """Whom we waited for, and went on without."""
        self._transport, self._signer, self._timing = transport, signer, timing
        self._clock: Clock = transport.clock
        self._results: list[ReducedChunk] = []
        self._failed = False
        self._awake = AwakeTime(self._clock.monotonic(), LONGEST_GAP_SECONDS)
        self._paces = Paces(timing, self._least_seconds())
        self._arrived = Signal()
        """A chunk has come, or a sender is not waited for any more."""
        self._observations: Sequence[Observed] | None = None
        self._weighed = asyncio.Event()
        """It is known what the owners of all parts have observed."""
        self._reduced = Signal()
        """There is another result, or there will be none."""
        self._open: list[PeerId] = []
        """Whose streams are being served."""
        self._numbers = {member.peer: number for number, member in enumerate(reduction.members)}

    async def run(self, own: EncodedUpdate | None, values: Vector, on_observed: Callable[[Observed], None]) -> HeldPart:
        """Reduces chunk after chunk; `own` is this member's update, `values` gets what the result decodes to.

        With a rule that looks at distances, `on_observed` is told what is to be seen of the part, and the reduction
        waits for `weigh`. Raises Rejected when a chunk has no sender left.
        """
        part = self.reduction.part
        try:
            async with beside(self._take_own(own)):
                if self.reduction.looks_at_distances:
                    await self._gather(on_observed)
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

    def _least_seconds(self) -> float:
        """What the part takes, when it comes from all senders over a fast line."""
        part, grid = self.reduction.part, self.reduction.grid
        size = sum(self.reduction.codec.encoded_size(grid.size(chunk)) for chunk in range(part.start, part.stop))
        return size * sum(member.weight > 0 for member in self.reduction.members) / FAST_LINE

    def weigh(self, observations: Sequence[Observed]) -> None:
        """The owners of all parts have observed this."""
        self._observations = observations
        self._weighed.set()

    async def _gather(self, on_observed: Callable[[Observed], None]) -> None:
        """Until all chunks of the part are here, and it is known what the others have observed of theirs."""
        part = self.reduction.part
        chunk = part.start
        while chunk < part.stop:
            await self._await_senders(chunk)
            stop = self._complete_until(chunk)
            await self._transport.in_thread(self._observe, chunk, stop)
            chunk = stop
        address = self.address
        on_observed(self.reduction.observed(address.term, address.number, address.attempt, address.begin))
        await self._weighed.wait()
        assert self._observations is not None
        await self._transport.in_thread(self.reduction.weigh, self._observations)

    def _observe(self, start: int, stop: int) -> None:
        for chunk in range(start, stop):
            self.reduction.observe(chunk)

    def _complete_until(self, chunk: int) -> int:
        """The first chunk after `chunk` that somebody still has to deliver; of a few, that results flow back soon."""
        stop = chunk + 1
        last = min(self.reduction.part.stop, chunk + WINDOW_CHUNKS)
        while stop < last and self.reduction.delivered(stop) and not self.reduction.missing(stop):
            stop += 1
        return stop

    def _reduce(self, start: int, stop: int, values: Vector) -> list[ReducedChunk]:
        """In a thread: several chunks at a time, for each time costs as much as a small chunk."""
        grid, first = self.reduction.grid, self.reduction.part.start
        return [self.reduction.reduce(chunk, values[grid.within(chunk, first)]) for chunk in range(start, stop)]

    async def serve(self, stream: Stream, contribution: Signed[Contribution]) -> None:
        """One member's stream: takes its chunks, sends the results. Raises Rejected, Unreachable."""
        number = self._number(stream.peer)
        digests = self.reduction.open(number, contribution.body)
        if digests:
            self.contributions[number] = contribution.wire
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
            # Its leader may have told it otherwise: nobody is to be suspended for whom it believes.
            raise Rejected(Reason.ABSENT, f"{peer} is not in this group")
        return self._numbers[peer]

    async def _take_own(self, own: EncodedUpdate | None) -> None:
        if own is None:
            return
        number = self._number(self._transport.peer_id)
        self.contributions[number] = sign_contribution(self._signer, self.address, own).wire
        # Kept for checks, a chunk would keep the whole update, of which it is a view where the codec does not copy.
        is_to_be_copied = self.reduction.keeps and not self.reduction.codec.copies
        while (chunk := self.reduction.next_chunk(number)) is not None:
            await self._window(chunk)
            payload = own.chunks[chunk]
            self.reduction.add(number, chunk, bytes(payload) if is_to_be_copied else payload)
            self._arrived.notify()

    async def _take(self, stream: Stream, number: int, digests: tuple[bytes, ...]) -> None:
        try:
            while digests and (chunk := self.reduction.next_chunk(number)) is not None:
                await self._window(chunk)
                self._paces.read(number, self._now())
                try:
                    frame = await stream.receive()
                finally:
                    self._paces.rest(number, self._now())
                if frame is None:
                    break
                self._take_frame(frame, number, digests)
                self._arrived.notify()
        except (Rejected, Unreachable):
            self._drop(number)
            raise
        if digests and self.reduction.next_chunk(number) is not None:
            self._drop(number)  # it has ended its stream early

    def _take_frame(self, frame: Frame, number: int, digests: tuple[bytes, ...]) -> None:
        for chunk, payload in chunks_of(frame, self.reduction.grid, self.reduction.codec):
            expected = self.reduction.next_chunk(number)
            if expected is None:
                return
            if chunk < expected:
                continue  # it starts over after its stream had broken
            if chunk > expected:
                raise Rejected(Reason.UNEXPECTED, f"chunk {expected} was skipped")
            self.bytes_received += memoryview(payload).nbytes
            self.reduction.check(chunk, payload, digests[chunk])
            self.reduction.add(number, chunk, payload)
            self._paces.take(number)

    async def _window(self, chunk: int) -> None:
        if self.reduction.looks_at_distances:
            return  # none is reduced before all are here
        while chunk - self.reduction.part.start >= len(self._results) + WINDOW_CHUNKS and not self._failed:
            await self._reduced.wait()

    def _drop(self, number: int) -> None:
        self.reduction.drop(number)
        self._paces.forget(number)
        self._arrived.notify()

    async def _await_senders(self, chunk: int) -> None:
        """Until all who are counted on have delivered `chunk`; stragglers are dropped at their deadline.

        Time in which we did not run is nobody's delay: what they have sent meanwhile is still to be read.
        """
        began = self._now()
        arrivals = [0.0] * len(self.reduction.delivered(chunk))
        while missing := self.reduction.missing(chunk):
            elapsed = self._now() - began
            delivered = len(self.reduction.delivered(chunk))
            arrivals += [elapsed] * (delivered - len(arrivals))
            remaining = straggler_deadline(arrivals, delivered + len(missing), self._timing) - elapsed
            left = self._paces.slack(missing, self._now()) if delivered > len(missing) else {}
            late = {number for number, seconds in left.items() if seconds <= 0}
            if late or remaining <= 0:
                self._drop_late(late if remaining > 0 else missing)
                continue
            pause = min(
                remaining, LONGEST_WAIT_SECONDS, *(max(seconds, SLACK_STEP_SECONDS) for seconds in left.values())
            )
            try:
                async with asyncio.timeout(max(pause, SHORTEST_WAIT_SECONDS)):
                    await self._arrived.wait()
            except TimeoutError:
                continue

    def _now(self) -> float:
        return self._awake.at(self._clock.monotonic())

    def _drop_late(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            slow = self.reduction.has_begun(number) or number in self._paces.senders
            self.faults[self.reduction.members[number].peer] = Fault.SLOW if slow else Fault.WITHHELD
            self._drop(number)

    # -- giving -------------------------------------------------------------------------------------------------------

    async def _send_results(self, stream: Stream) -> None:
        sent = 0
        while True:
            while sent < len(self._results):
                waiting = [reduced.payload for reduced in self._results[sent:]]
                for frame in chunk_frames(waiting, self.reduction.part.start + sent):
                    await stream.send(frame)
                    self.bytes_sent += memoryview(frame.payload).nbytes
                sent += len(waiting)
            if self.held is not None:
                await stream.send(Frame(b"", self.held.statement))
                return
            if self._failed:
                raise Rejected(Reason.ABSENT, "this part could not be reduced here")
            await self._wait_for_results(stream)

    async def _wait_for_results(self, stream: Stream) -> None:
        """Says meanwhile that we are alive, where results come only when all chunks are here."""
        if not self.reduction.looks_at_distances or self._weighed.is_set():
            await self._reduced.wait()
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(self._timing.failure / 4):
                await self._reduced.wait()
                return
        await stream.send(SIGN_OF_LIFE)

    def _sign(self) -> HeldPart:
        address = self.address
        digests = tuple(reduced.digest for reduced in self._results)
        included = tuple(reduced.included for reduced in self._results)
        statement = self._signer.sign(
            Result(
                term=address.term,
                part=address.number,
                attempt=address.attempt,
                begin=address.begin,
                chunks=digests,
                included=included,
                weighed=weighing_digest(self._observations) if self._observations is not None else None,
            ),
            address.epoch,
        )
        bounds = self.reduction.part
        result = PartResult(start=bounds.start, stop=bounds.stop, digest=commitment(digests))
        return HeldPart(result, tuple(reduced.payload for reduced in self._results), statement.wire)
