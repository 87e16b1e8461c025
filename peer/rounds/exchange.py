"""The sender's end of a part: streams our chunks to the owner and reads the result on the same stream."""

from dataclasses import dataclass
from functools import partial

from dht.interfaces import Frame, Stream, Transport
from peer.rounds.chunk_frames import chunk_frames
from peer.rounds.results import HeldPart, read_result
from peer.rounds.traffic import Traffic, receive_counted
from peer.tasks import beside
from protocols.codecs import Codec, Payload
from protocols.identity import PeerId
from protocols.rejection import Reason, Rejected
from protocols.round.messages import Contribution, Part, PartResult, Result, commitment
from protocols.round.parts import MAX_CHUNK, Grid
from protocols.round.reduction import EncodedUpdate
from protocols.signed import Signed, Signer, open_signed
from protocols.vectors import Vector

PART_KIND = "part"
PART_FRAME_BYTES = max(4 * MAX_CHUNK, Contribution.limit_bytes) + 64 * 1024
"""Of a chunk in the longest of the codecs, or of the digests of all chunks, which come first."""


@dataclass(frozen=True, slots=True)
class PartAddress:
    """Which attempt at which part this is."""

    epoch: int
    term: int
    number: int
    attempt: int
    part: Part
    owner: PeerId
    begin: bytes
    """`begin_digest` of the round."""


def sign_contribution(signer: Signer, address: PartAddress, update: EncodedUpdate | None) -> Signed[Contribution]:
    """The head of our stream to the owner; `update`: None where we only read the result."""
    body = Contribution(
        term=address.term,
        part=address.number,
        attempt=address.attempt,
        begin=address.begin,
        chunks=update.digests if update else (),
        cell=update.cell if update else (),
    )
    return signer.sign(body, address.epoch)


async def exchange_part(
    transport: Transport,
    signer: Signer,
    address: PartAddress,
    update: EncodedUpdate | None,
    grid: Grid,
    codec: Codec,
    values: Vector,
    stall_seconds: float,
    traffic: Traffic,
) -> HeldPart:
    """Contributes `update` (None: only reads) to one part and returns its result, checked against the owner's word.

    `values` gets what the result decodes to, chunk by chunk as it comes.
    Raises Unreachable, TimedOut (nothing came for `stall_seconds`), Refused, Rejected.
    """
    contribution = sign_contribution(signer, address, update)
    async with await transport.open_stream(address.owner, PART_KIND) as stream:
        await stream.send(Frame(contribution.wire))
        async with beside(_send_chunks(stream, address.part, update, traffic)):
            receive = partial(receive_counted, stream, stall_seconds, traffic)
            part = address.part
            chunks, digests, wire = await read_result(receive, part.start, part.stop, grid, codec, values)
            return _check_statement(wire, signer.run, address, chunks, digests)


async def _send_chunks(stream: Stream, part: Part, update: EncodedUpdate | None, traffic: Traffic) -> None:
    if update is None:
        return
    for frame in chunk_frames(update.chunks[part.start : part.stop], part.start):
        await stream.send(frame)
        traffic.sent += memoryview(frame.payload).nbytes


def _check_statement(
    wire: bytes, run: str, address: PartAddress, chunks: list[Payload], digests: list[bytes]
) -> HeldPart:
    statement = open_signed(wire, Result, run=run, sender=address.owner)
    body = statement.body
    where = (statement.epoch, body.term, body.part, body.attempt)
    if where != (address.epoch, address.term, address.number, address.attempt) or body.begin != address.begin:
        raise Rejected(Reason.UNEXPECTED, "the owner's statement is about another part")
    if body.chunks != tuple(digests) or len(chunks) != address.part.stop - address.part.start:
        raise Rejected(Reason.WRONG_DIGEST, "the owner's statement is not about the chunks it sent")
    result = PartResult(start=address.part.start, stop=address.part.stop, digest=commitment(body.chunks))
    return HeldPart(result, tuple(chunks), wire)
