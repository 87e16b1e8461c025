"""What the parts of the last rounds were reduced from: kept by their owners, shown to whoever checks.

Every chunk comes with what its sender has signed, so nobody can show anything that was not sent.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

from dht.interfaces import Frame, Stream, TimedOut, Transport
from peer.streams import next_request
from protocols.codecs import Codec, Payload
from protocols.encoding import DIGEST_BYTES, EncodingError, decode_scalars, encode
from protocols.identity import PeerId
from protocols.rejection import Reason, Rejected
from protocols.round.messages import MAX_MEMBERS, Begin, begin_digest
from protocols.round.parts import Grid
from protocols.signed import Signed
from protocols.verification.charges import open_sent

INPUTS_KIND = "inputs"
ROW_SECONDS = 20.0
"""A row of a chunk takes a holder no longer, or it is not waited for."""
FEWEST_ROUNDS, MOST_ROUNDS = 2, 16
KEPT_BYTES = 64 * 1024 * 1024
"""Where rounds are small more of them are kept, as far as they take no more than this."""


@dataclass(slots=True)
class Inputs:
    """Of one round, as far as they are here."""

    contributions: dict[int, bytes] = field(default_factory=dict)
    """Member number → wire bytes of a `Signed[Contribution]` of it."""
    rows: dict[int, dict[int, Payload]] = field(default_factory=dict)
    """Chunk → member number → what it has sent."""

    def add(self, contributions: Mapping[int, bytes], rows: Mapping[int, Mapping[int, Payload]]) -> None:
        self.contributions |= contributions
        for chunk, of_members in rows.items():
            self.rows.setdefault(chunk, {}).update(of_members)

    @property
    def size_bytes(self) -> int:
        return sum(memoryview(row).nbytes for of_members in self.rows.values() for row in of_members.values())


class InputStore:
    """The inputs of the last rounds."""

    def __init__(self) -> None:
        self._rounds: OrderedDict[bytes, Inputs] = OrderedDict()
        """By `begin_digest`."""

    def put(self, begin: bytes, contributions: Mapping[int, bytes], rows: Mapping[int, Mapping[int, Payload]]) -> None:
        self._rounds.setdefault(begin, Inputs()).add(contributions, rows)
        while len(self._rounds) > FEWEST_ROUNDS and (len(self._rounds) > MOST_ROUNDS or self.size_bytes > KEPT_BYTES):
            self._rounds.popitem(last=False)

    @property
    def size_bytes(self) -> int:
        return sum(inputs.size_bytes for inputs in self._rounds.values())

    def get(self, begin: bytes) -> Inputs:
        return self._rounds.get(begin) or Inputs()

    async def serve(self, stream: Stream) -> None:
        """Answers requests (round, chunk, member or −1 for all of whom there is something), each with a frame for each
        member, in order: its number and its contribution for a header, its chunk for a payload; then an empty frame.

        Raises Rejected.
        """
        while (frame := await next_request(stream)) is not None:
            begin, chunk, member = _parse(frame.header)
            inputs = self.get(begin)
            for number, payload in sorted(inputs.rows.get(chunk, {}).items()):
                if member in (number, -1) and number in inputs.contributions:
                    header = encode([number, inputs.contributions[number]])
                    await stream.send(Frame(header, payload))
            await stream.send(Frame())


def _parse(header: bytes) -> tuple[bytes, int, int]:
    try:
        begin, chunk, member = decode_scalars(header, 3)
    except EncodingError as error:
        raise Rejected(Reason.MALFORMED, "not a request for inputs") from error
    if type(begin) is not bytes or len(begin) != DIGEST_BYTES or type(chunk) is not int or type(member) is not int:
        raise Rejected(Reason.MALFORMED, "not a request for inputs")
    return begin, chunk, member


@dataclass(frozen=True, slots=True)
class Row:
    """What one member has sent, checked."""

    number: int
    contribution: bytes
    payload: Payload


async def fetch_rows(
    transport: Transport,
    holder: PeerId,
    begin: Signed[Begin],
    chunk: int,
    codec: Codec,
    grid: Grid,
    member: int = -1,
) -> dict[int, Row]:
    """What `holder` shows of this chunk: member number → what it has sent (`member`: only it).

    Raises Unreachable, TimedOut, Rejected (where it shows what was not sent).
    """
    rows: dict[int, Row] = {}
    async with await transport.open_stream(holder, INPUTS_KIND) as stream:
        await stream.send(Frame(encode([begin_digest(begin.body), chunk, member])))
        while (frame := await _next_row(stream)) is not None and frame.header:
            row = _row(frame)
            if row.number in rows or row.number >= len(begin.body.members) or member not in (row.number, -1):
                raise Rejected(Reason.UNEXPECTED, "not an input of one of the members, or one for the second time")
            sent = await transport.in_thread(open_sent, begin, row.contribution, chunk, row.payload, codec, grid)
            if begin.body.members[row.number].peer != sent.sender:
                raise Rejected(Reason.UNEXPECTED, "the input is another member's")
            rows[row.number] = row
    return rows


async def _next_row(stream: Stream) -> Frame | None:
    try:
        async with asyncio.timeout(ROW_SECONDS):
            return await stream.receive()
    except TimeoutError as error:
        raise TimedOut(f"{stream.peer} showed no input for {ROW_SECONDS:.0f} s") from error


def _row(frame: Frame) -> Row:
    try:
        number, contribution = decode_scalars(frame.header, 2)
    except EncodingError as error:
        raise Rejected(Reason.MALFORMED, "not an input") from error
    if type(number) is not int or not 0 <= number < MAX_MEMBERS or type(contribution) is not bytes:
        raise Rejected(Reason.MALFORMED, "not an input")
    return Row(number, contribution, frame.payload)
