"""The reduced parts of the last epochs, kept for members that come late, and how they are fetched."""

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

from pydantic import ValidationError

from dht.interfaces import Frame, Stream, TimedOut, Transport
from peer.rounds.chunk_frames import SIGN_OF_LIFE, chunk_frames, chunks_of
from peer.rounds.traffic import Traffic, receive_counted
from peer.streams import next_request
from protocols.codecs import Codec, Payload
from protocols.encoding import EncodingError, decode_scalars, encode
from protocols.identity import PeerId
from protocols.rejection import Reason, Rejected
from protocols.round.messages import PartResult, Result, commitment
from protocols.round.parts import Grid
from protocols.round.reduction import open_result_chunk
from protocols.signed import open_signed
from protocols.vectors import Vector

FETCH_KIND = "result"
WAITING_EPOCHS = 4
"""The results of so many epochs stay, whatever memory they take, while somebody fetches what comes before them."""
SILENCE_SECONDS = 20.0
"""A holder that sends nothing for so long is given up. A chunk has half a megabyte, and several parts share a line."""
SLOWEST_BYTES_PER_SECOND = 16 * 1024
"""So is one that takes longer for a whole part than this, and SILENCE_SECONDS."""
MOST_SIGNS = 64
"""So many times an owner may say that it is alive before a result comes."""


@dataclass(frozen=True, slots=True)
class HeldPart:
    """The encoded chunks of one reduced part, and the wire bytes of its owner's signed `Result`."""

    result: PartResult
    chunks: tuple[Payload, ...]
    statement: bytes
    size_bytes: int = field(init=False)
    """Of the chunks."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "size_bytes", sum(memoryview(chunk).nbytes for chunk in self.chunks))


class ResultStore:
    """Held parts by epoch; the oldest epochs go first when there are too many or they take too much memory.

    Who is behind on a slow line carries one epoch's results after the other. So what comes after what somebody is
    fetching stays for it, up to WAITING_EPOCHS; and until the next epoch but one, for it may be between two fetches.
    """

    def __init__(
        self,
        fetched_from: Callable[[], int | None] = lambda: None,
        epochs: int = 8,
        limit_bytes: int = 16 * 1024 * 1024,
    ) -> None:
        """`fetched_from`: the oldest epoch whose state somebody is fetching here."""
        self.most_epochs, self._limit_bytes = epochs, limit_bytes
        self._fetched_from = fetched_from
        self._epochs: OrderedDict[int, dict[PartResult, HeldPart]] = OrderedDict()
        self._read: Counter[int] = Counter()
        """Epoch → the streams on which its results are being fetched."""
        self._awaited_from: deque[int | None] = deque(maxlen=2)
        """The oldest epoch that somebody was fetching, or its state, when the last rounds began."""

    def make_room(self, size_bytes: int) -> None:
        """A round begins, whose results will take `size_bytes`: the oldest that nobody waits for are let go."""
        awaited = [*self._read, self._fetched_from()]
        self._awaited_from.append(min((epoch for epoch in awaited if epoch is not None), default=None))
        self._let_go(size_bytes, list(self._epochs))

    def put(self, epoch: int, part: HeldPart) -> None:
        self._epochs.setdefault(epoch, {})[part.result] = part
        self._let_go(0, list(self._epochs)[:-1])

    def _let_go(self, size_bytes: int, epochs: list[int]) -> None:
        """Of `epochs`, until there is room for so much more."""
        first = min((epoch for epoch in self._awaited_from if epoch is not None), default=None)
        awaited = [epoch for epoch in self._epochs if first is not None and epoch >= first][-WAITING_EPOCHS:]
        for epoch in epochs:
            if len(self._epochs) <= self.most_epochs and self.size_bytes + size_bytes <= self._limit_bytes:
                return
            if epoch not in awaited:
                del self._epochs[epoch]

    def get(self, epoch: int, result: PartResult) -> HeldPart | None:
        return self._epochs.get(epoch, {}).get(result)

    def keep_only(self, epoch: int, decided: tuple[PartResult, ...]) -> None:
        """Lets go of what was not decided."""
        if held := self._epochs.get(epoch):
            self._epochs[epoch] = {result: held[result] for result in decided if result in held}

    def clear(self) -> None:
        self._epochs.clear()

    @property
    def epochs(self) -> int:
        return len(self._epochs)

    @property
    def size_bytes(self) -> int:
        return sum(part.size_bytes for parts in self._epochs.values() for part in parts.values())

    async def serve(self, stream: Stream) -> None:
        """Answers one fetch: the chunks in order, then the owner's statement. Raises Rejected."""
        frame = await next_request(stream)
        if frame is None:
            return
        epoch, result = _parse_request(frame.header)
        part = self.get(epoch, result)
        if part is None:
            raise Rejected(Reason.UNEXPECTED, f"no such result of epoch {epoch} is held here")
        self._read[epoch] += 1
        try:
            for chunks in chunk_frames(part.chunks, result.start):
                await stream.send(chunks)
            await stream.send(Frame(b"", part.statement))
        finally:
            self._read[epoch] -= 1
            self._read += Counter()  # forgets the zeros


@dataclass(frozen=True, slots=True)
class Wanted:
    """One reduced part of one epoch of a run."""

    run: str
    epoch: int
    result: PartResult
    owner: PeerId | None = None
    """Whose signed `Result` it must be; None: anybody's, for its digest is known to be right."""


async def fetch(
    transport: Transport, holder: PeerId, wanted: Wanted, grid: Grid, codec: Codec, values: Vector, traffic: Traffic
) -> HeldPart:
    """Gets one reduced part from `holder`, checked against its digest and its owner's word; decoded into `values`.

    Raises Unreachable, TimedOut, Refused, Rejected (wrong_digest, wrong_shape, non_finite, unexpected, malformed, and
    what `open_signed` raises).
    """
    result = wanted.result
    try:
        async with (
            asyncio.timeout(SILENCE_SECONDS + codec.encoded_size(len(values)) / SLOWEST_BYTES_PER_SECOND),
            await transport.open_stream(holder, FETCH_KIND) as stream,
        ):
            await stream.send(Frame(encode([wanted.epoch, result.start, result.stop, result.digest])))
            receive = partial(receive_counted, stream, SILENCE_SECONDS, traffic)
            chunks, digests, wire = await read_result(receive, result.start, result.stop, grid, codec, values)
    except TimeoutError as error:
        raise TimedOut(f"{holder} takes too long to send a result") from error
    if commitment(tuple(digests)) != result.digest:
        raise Rejected(Reason.WRONG_DIGEST, "the fetched part is not the decided one")
    return HeldPart(result, tuple(chunks), _checked_statement(wire, wanted, digests))


async def read_result(
    receive: Callable[[], Awaitable[Frame | None]], start: int, stop: int, grid: Grid, codec: Codec, values: Vector
) -> tuple[list[Payload], list[bytes], bytes]:
    """The encoded chunks start … stop − 1 of a result, as they come, their digests, and the owner's statement.

    `values` gets what they decode to, chunk by chunk. The statement is not verified yet, and there may be fewer chunks.
    Raises Rejected (wrong_shape, non_finite, unexpected, malformed), and what `receive` raises.
    """
    chunks: list[Payload] = []
    digests: list[bytes] = []
    signs = 0
    while (frame := await receive()) is not None:
        if not frame.header:
            return chunks, digests, bytes(frame.payload)
        if frame == SIGN_OF_LIFE and signs < MOST_SIGNS:
            signs += 1
            continue
        for chunk, payload in chunks_of(frame, grid, codec):
            if chunk != start + len(chunks) or chunk >= stop:
                raise Rejected(Reason.UNEXPECTED, "the chunks of the result are not in order")
            kept, its_digest = open_result_chunk(payload, values[grid.within(chunk, start)], codec)
            chunks.append(kept)
            digests.append(its_digest)
    raise Rejected(Reason.MALFORMED, "the stream ended before the part was whole")


def _checked_statement(wire: bytes, wanted: Wanted, digests: list[bytes]) -> bytes:
    statement = open_signed(wire, Result, run=wanted.run, sender=wanted.owner)
    if statement.epoch != wanted.epoch or statement.body.chunks != tuple(digests):
        raise Rejected(Reason.WRONG_DIGEST, "the owner's statement is about something else than the fetched part")
    return wire


def _parse_request(header: bytes) -> tuple[int, PartResult]:
    try:
        epoch, start, stop, wanted = decode_scalars(header, 4)
        result = PartResult(start=start, stop=stop, digest=wanted)
    except (EncodingError, ValidationError) as error:
        raise Rejected(Reason.MALFORMED, "not a request for a result") from error
    if type(epoch) is not int:
        raise Rejected(Reason.MALFORMED, "a request for a result of no epoch")
    return epoch, result
