"""A trainer's end of the streams to the peers of stages: one work at a time on each, as many streams as it takes."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from dht.interfaces import Stream, TimedOut, Transport, Unreachable
from peer.swarm.microbatch import Tensor
from peer.swarm.server import COUNT_KIND, WORK_KIND, StageServer, ask_coverage
from peer.swarm.tensor_frames import check_announced, receive_payloads, send_message
from protocols.activations import TensorBounds
from protocols.codecs import CODECS, Payload
from protocols.encoding import digest
from protocols.identity import PeerId
from protocols.rejection import Reason, Rejected
from protocols.signed import Signed, Signer, open_signed
from protocols.swarm.coverage import from_bytes, to_bytes
from protocols.swarm.messages import Answer, Count, Coverage, Delivery, Work, work_digest

COUNT_SECONDS = 5.0
KEPT_STREAMS = 4
"""Idle ones, of each peer."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a peer of a stage gave; the tensor is finite, and of a shape that was accepted."""

    statement: Signed[Answer]
    tensor: Tensor | None

    @property
    def answer(self) -> Answer:
        return self.statement.body


class StageClient:
    def __init__(self, transport: Transport, signer: Signer, codec: str, own: StageServer) -> None:
        """`own`: where work for this peer goes."""
        self._own = own
        self._transport, self._signer, self._codec = transport, signer, codec
        self._idle: defaultdict[PeerId, list[Stream]] = defaultdict(list)

    async def ask(
        self,
        peer: PeerId,
        work: Work,
        payloads: Sequence[Payload],
        accepted: Sequence[TensorBounds],
        seconds: float,
        *,
        kept: bool = False,
    ) -> Reply:
        """What the stage's peer makes of it; `accepted` are the tensors that may come back. `kept`: it has said to have
        kept the inputs.

        Raises TransportError, Rejected.
        """
        if peer == self._transport.peer_id:
            answer, payload = await self._own.handle(peer, Delivery(work=work), payloads)
            tensor = Tensor(answer.tensor, payload) if answer.tensor is not None else None
            return Reply(self._signer.sign(answer, work.epoch), tensor)
        try:
            async with asyncio.timeout(seconds):
                stream, is_old = await self._stream(peer)
                try:
                    reply = await self._exchange(stream, work, payloads, accepted, kept)
                except Unreachable:
                    if not is_old:
                        raise
                    stream = await self._transport.open_stream(peer, WORK_KIND)
                    reply = await self._exchange(stream, work, payloads, accepted, kept)
                if kept and reply.answer.outcome == "forgotten":
                    reply = await self._exchange(stream, work, payloads, accepted, kept=False)
        except TimeoutError as error:
            raise TimedOut(f"{peer} has not done its work within {seconds:.1f} s") from error
        if reply.answer.outcome == "moved" or len(self._idle[peer]) >= KEPT_STREAMS:
            await stream.close()
        else:
            self._idle[peer].append(stream)
        return reply

    async def count(self, peer: PeerId, stage: int, epoch: int, microbatches: int) -> int:
        """Has them counted; the mask of those that are. Raises TransportError, Rejected."""
        statement = self._signer.sign(Count(stage=stage, microbatches=to_bytes(microbatches)), epoch)
        if peer == self._transport.peer_id:
            return await self._own.count(statement)
        counted = await self._transport.request(peer, COUNT_KIND, statement.wire, COUNT_SECONDS)
        if len(counted) > Count.limit_bytes:
            raise Rejected(Reason.OVERSIZED, "a mask that is longer than an epoch")
        return from_bytes(counted) & microbatches

    async def coverage(self, peer: PeerId) -> Coverage | None:
        """What it says to have counted, if it serves a stage. Raises TransportError, Rejected."""
        if peer == self._transport.peer_id:
            stage = self._own.stage
            return self._own.coverage(stage) if stage is not None else None
        return await ask_coverage(self._transport, peer, COUNT_SECONDS)

    def forget(self, peer: PeerId) -> None:
        for stream in self._idle.pop(peer, []):
            stream.abort()

    async def close(self) -> None:
        for peer in list(self._idle):
            self.forget(peer)

    async def _stream(self, peer: PeerId) -> tuple[Stream, bool]:
        """A stream, and whether it was used before."""
        if self._idle[peer]:
            return self._idle[peer].pop(), True
        return await self._transport.open_stream(peer, WORK_KIND), False

    async def _exchange(
        self, stream: Stream, work: Work, payloads: Sequence[Payload], accepted: Sequence[TensorBounds], kept: bool
    ) -> Reply:
        try:
            digests = [digest(memoryview(payload)) for payload in payloads]
            delivery = Delivery(work=work, kept=digests[0] if kept else None)
            await send_message(stream, delivery.to_bytes(), payloads[1:] if kept else payloads)
            frame = await stream.receive()
            if frame is None:
                raise Unreachable(f"{stream.peer} has closed its stream")
            statement = open_signed(frame.header, Answer, run=self._signer.run, sender=stream.peer)
            answer = statement.body
            if answer.work != work_digest(work, *(digests if answer.outcome == "done" else ())):
                raise Rejected(Reason.WRONG_DIGEST, "the answer is to other work")
            if answer.tensor is None:
                if answer.outcome == "done" and accepted:
                    raise Rejected(Reason.WRONG_SHAPE, "work that is done, and no tensor")
                return Reply(statement, None)
            check_announced(answer.tensor, accepted, self._codec)
            [payload] = await receive_payloads(stream, frame, [answer.tensor.payload_bytes])
            if digest(memoryview(payload)) != answer.payload:
                raise Rejected(Reason.WRONG_DIGEST, "the tensor is not the one that was signed")
            await self._transport.in_thread(CODECS[answer.tensor.encoding].check, payload, answer.tensor.count)
        except BaseException:
            stream.abort()
            raise
        return Reply(statement, Tensor(answer.tensor, payload))
