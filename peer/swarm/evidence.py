"""The tensors of a charge, shown by who has charged to who looks into it."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence

from dht.interfaces import Frame, Stream, Transport
from peer.streams import REQUEST_BYTES, next_request
from peer.swarm.server import Accepted, check_work
from peer.swarm.tensor_frames import check_announced, receive_payloads, send_message
from protocols.activations import TensorBounds, TensorHeader
from protocols.codecs import Payload
from protocols.encoding import digest
from protocols.identity import PeerId
from protocols.manifest import Pipeline
from protocols.rejection import Reason, Rejected
from protocols.signed import Signed
from protocols.swarm.charges import AnswerCharge, charge_digest
from protocols.swarm.messages import Answer, work_digest

EVIDENCE_KIND = "swarm-evidence"
KEPT = 8
"""Charges of ours whose tensors are kept."""
SHOWN_AT_ONCE = 4
FETCH_SECONDS = 120.0
SHOW_SECONDS = FETCH_SECONDS / 2
"""Who has not taken them by then makes room for others, who still have the time."""


class EvidenceStore:
    def __init__(self, transport: Transport, admit: Callable[[PeerId], None]) -> None:
        """`admit` raises Rejected for who may not take part."""
        self._transport, self._admit = transport, admit
        self._kept: OrderedDict[bytes, tuple[Payload, ...]] = OrderedDict()
        self._showing = asyncio.Semaphore(SHOWN_AT_ONCE)
        self._asking: set[PeerId] = set()
        """To whom something is shown, or will be."""

    async def serve(self) -> None:
        await self._transport.serve_streams(EVIDENCE_KIND, self._show, REQUEST_BYTES)

    def keep(self, charge: AnswerCharge, payloads: Sequence[Payload]) -> None:
        """`payloads`: of the work's tensors, then of the two answers', as far as they have any."""
        self._kept[charge_digest(charge)] = tuple(payloads)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)

    async def _show(self, stream: Stream) -> None:
        self._admit(stream.peer)
        frame = await next_request(stream)
        payloads = self._kept.get(frame.header) if frame is not None else None
        if payloads is None:
            raise Rejected(Reason.ABSENT, "no such evidence is kept here")
        if stream.peer in self._asking:
            raise Rejected(Reason.BUSY, "evidence is shown to each one after the other")
        self._asking.add(stream.peer)
        try:
            async with self._showing, asyncio.timeout(SHOW_SECONDS):
                await send_message(stream, b"", payloads)
        except TimeoutError:
            raise Rejected(Reason.UNEXPECTED, f"evidence was not taken within {SHOW_SECONDS:.0f} s") from None
        finally:
            self._asking.discard(stream.peer)


async def fetch_evidence(
    transport: Transport,
    accuser: PeerId,
    charge: AnswerCharge,
    answers: tuple[Signed[Answer], Signed[Answer]],
    accepted: Accepted,
    outputs: Sequence[TensorBounds],
    training: Pipeline,
) -> list[Payload]:
    """Those of the work, then those of the answers; all are what was signed.

    Raises Rejected, TransportError, TimeoutError.
    """
    check_work(charge.work, accepted, training)
    headers: list[TensorHeader] = list(charge.work.tensors)
    for answer in answers:
        if answer.body.tensor is not None:
            check_announced(answer.body.tensor, outputs, training.codec)
            headers.append(answer.body.tensor)
    async with asyncio.timeout(FETCH_SECONDS), await transport.open_stream(accuser, EVIDENCE_KIND) as stream:
        await stream.send(Frame(charge_digest(charge)))
        frame = await stream.receive()
        if frame is None:
            raise Rejected(Reason.ABSENT, "who charges others shows no evidence")
        payloads: list[Payload] = list(
            await receive_payloads(stream, frame, [header.payload_bytes for header in headers])
        )
    digests = [digest(memoryview(payload)) for payload in payloads]
    asked = len(charge.work.tensors)
    if work_digest(charge.work, *digests[:asked]) != answers[0].body.work:
        raise Rejected(Reason.WRONG_DIGEST, "the tensors are not those of the work that was signed")
    if digests[asked:] != [answer.body.payload for answer in answers if answer.body.tensor is not None]:
        raise Rejected(Reason.WRONG_DIGEST, "the tensors are not those of the answers that were signed")
    return payloads
