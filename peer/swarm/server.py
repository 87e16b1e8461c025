"""Serves trainers: takes their microbatches, has the stage compute them, and says what is counted.

Works wait in a queue of limited length; whoever comes when it is full hears "busy" and goes elsewhere. Backward passes
come first, for a microbatch that is far along holds memory at its trainer; forward passes of one shape are computed
together. What is to be evaluated comes last, and one batch at a time, so that training waits for no more than that.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import structlog
import torch
from torch import Tensor

from dht.border import Border
from dht.interfaces import Frame, Stream, Transport, TransportError
from peer.signal import Signal
from peer.swarm.compute import Forgotten
from peer.swarm.kept_passes import Passage
from peer.swarm.receiving import Receiving
from peer.swarm.stage import EpochOver, Moved, Order, Stage
from peer.swarm.tensor_frames import check_announced, send_message
from protocols.activations import TensorBounds, TensorHeader, decode_tensor, encode_tensor
from protocols.codecs import Payload
from protocols.encoding import digest
from protocols.identity import PeerId
from protocols.manifest import Pipeline
from protocols.rejection import Reason, Rejected
from protocols.signed import Signed, Signer, open_signed
from protocols.swarm.coverage import everything, from_bytes, to_bytes
from protocols.swarm.messages import Answer, Count, Coverage, Delivery, OpenEpoch, Outcome, Work, WorkTask, work_digest

WORK_KIND = "swarm-work"
COUNT_KIND = "swarm-count"
COVERAGE_KIND = "swarm-coverage"
FRAME_BYTES = 512 * 1024
IDLE_SECONDS = 60.0
TAKE_SECONDS = 60.0
"""For an answer; no trainer waits longer for one (`router.MOST_SECONDS`)."""
QUEUE_LIMIT = 16
"""Works that wait, …"""
QUEUE_LIMIT_OF_ONE = 8
"""… and of one trainer, so that none crowds out the others."""
FORWARDS_TOGETHER = 4
PASSED_BY = 2 * QUEUE_LIMIT
"""A work of training is next when so many others have come since: who sends one backward pass after the other keeps
nobody's forward passes waiting for ever."""

_RANKS: dict[WorkTask, int] = {"backward": 0, "forward": 1, "evaluate": 2}

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Accepted:
    """The tensors that a stage takes."""

    inputs: tuple[TensorBounds, ...]
    other: tuple[TensorBounds, ...]
    """With a backward pass: gradients of the outputs, or targets."""


@dataclass(order=True)
class _Job:
    priority: tuple[int, int, int]
    """By task, then by epoch, then as they came."""
    task: WorkTask = field(compare=False)
    order: Order = field(compare=False)
    done: "asyncio.Future[tuple[Tensor | None, float | None]]" = field(compare=False)

    def has_waited(self, newest: int) -> bool:
        """Whether too many have come since, of which `newest` is the last."""
        return self.task != "evaluate" and newest - self.priority[-1] > PASSED_BY


def check_work(work: Work, accepted: Accepted, training: Pipeline) -> None:
    """Before anything of its tensors is received. Raises Rejected."""
    check_announced(work.inputs, accepted.inputs, training.codec)
    if (work.other is None) == (work.task == "backward"):
        raise Rejected(Reason.MALFORMED, "a backward pass takes two tensors, any other work one")
    if work.other is not None:
        check_announced(work.other, accepted.other, training.codec)
    if work.microbatch >= training.microbatches:
        raise Rejected(Reason.UNEXPECTED, f"an epoch has no microbatch {work.microbatch}")


async def ask_coverage(transport: Transport, peer: PeerId, seconds: float) -> Coverage | None:
    """What a peer says to have counted, if it serves a stage. Raises TransportError, Rejected."""
    answer = await transport.request(peer, COVERAGE_KIND, b"", seconds)
    return Coverage.from_bytes(answer) if answer else None


def _go_together(one: Order, other: Order) -> bool:
    """Whether the two forward passes can be computed as one."""
    return one.epoch == other.epoch and one.given.shape[1:] == other.given.shape[1:]


class NotComputed(TransportError):
    """By a mistake of ours: who has asked goes elsewhere, as if the line had broken."""


class StageServer:
    """Of one peer; the stage that it serves may change."""

    def __init__(
        self,
        transport: Transport,
        signer: Signer,
        training: Pipeline,
        border: Border,
        admit: Callable[[PeerId], None],
        known: Callable[[int, int], bytes | None] = lambda _stage, _epoch: None,
    ) -> None:
        """`admit` raises Rejected for who may not take part. `known`: what our stage has counted of an epoch, as in
        `Coverage`.
        """
        self.stage: Stage | None = None
        self._accepted: Accepted | None = None
        self._transport, self._signer, self._training = transport, signer, training
        self._border, self._admit, self._known = border, admit, known
        self.answer_bytes: dict[WorkTask, int] = {}
        """Of the newest work of each task, on this stage."""
        self._jobs: list[_Job] = []
        self._waiting: Counter[PeerId] = Counter()
        self._receiving = Receiving()
        self._arrived = Signal()
        self._came = 0

    async def serve(self) -> None:
        """From now on trainers are answered."""
        await self._transport.serve_streams(WORK_KIND, self._serve, FRAME_BYTES)
        await self._transport.serve_requests(COUNT_KIND, self._count)
        await self._transport.serve_requests(COVERAGE_KIND, self._cover)

    def take(self, stage: Stage | None, accepted: Accepted | None) -> None:
        """Serves another stage, or none."""
        self.stage, self._accepted = stage, accepted
        self.answer_bytes.clear()
        for job in self._jobs:
            if not job.done.done():
                job.done.set_exception(Moved())
        self._jobs.clear()

    @property
    def queue(self) -> int:
        return len(self._jobs)

    # -- computing ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Computes what waits, until cancelled."""
        while True:
            jobs = self._next()
            if not jobs or self.stage is None:
                await self._arrived.wait()
                continue
            async with self._border.around("computing a microbatch"):
                await self._compute(self.stage, jobs)

    def _next(self) -> list[_Job]:
        """What is computed next: one work, or forward passes that go together."""
        self._jobs = [job for job in self._jobs if not job.done.done()]  # who asked may have gone
        if not self._jobs:
            return []
        self._jobs.sort()
        first = next((job for job in self._jobs if job.has_waited(self._came)), self._jobs[0])
        jobs = [first]
        if first.task == "forward":
            others = (job for job in self._jobs if job is not first and job.task == "forward")
            alike = (job for job in others if _go_together(job.order, first.order))
            jobs += islice(alike, FORWARDS_TOGETHER - 1)
        self._jobs = [job for job in self._jobs if job not in jobs]
        return jobs

    async def _compute(self, stage: Stage, jobs: list[_Job]) -> None:
        try:
            match jobs[0].task:
                case "backward":
                    results = [await stage.backward(jobs[0].order)]
                case "evaluate":
                    results = [(await stage.evaluate_batch(jobs[0].order.epoch, jobs[0].order.given), None)]
                case "forward":
                    outputs = await stage.forward([job.order for job in jobs])
                    results = [(each, None) for each in outputs]
        except (Rejected, EpochOver, Forgotten, Moved) as error:
            for job in jobs:
                if not job.done.done():
                    job.done.set_exception(error)
            return
        except BaseException:
            for job in jobs:
                if not job.done.done():
                    job.done.set_exception(NotComputed("this work could not be computed"))
            raise
        for job, result in zip(jobs, results, strict=True):
            if not job.done.done():
                job.done.set_result(result)

    # -- trainers ----------------------------------------------------------------------------------------------------

    async def _serve(self, stream: Stream) -> None:
        """One work after the other. Raises Rejected, Unreachable, NotComputed."""
        self._admit(stream.peer)
        while (frame := await self._next_frame(stream)) is not None:
            delivery, accepted = Delivery.from_bytes(frame.header), self._accepted
            work = delivery.work
            if accepted is None or self.stage is None or work.stage != self.stage.number:
                await self._answer(stream, work, Answer(outcome="moved", work=work_digest(work)))
                return
            check_work(work, accepted, self._training)
            if delivery.kept is not None and work.task != "backward":
                raise Rejected(Reason.MALFORMED, "only of a backward pass the inputs may be here already")
            sizes = [header.payload_bytes for header in delivery.tensors]
            payloads = await self._receiving.receive(stream, frame, sizes)
            if payloads is None:
                await self._answer(stream, work, Answer(outcome="busy", work=work_digest(work), queue=self.queue))
            else:
                await self._answer(stream, work, *await self.handle(stream.peer, delivery, payloads))

    async def _next_frame(self, stream: Stream) -> Frame | None:
        """None when the trainer has no more work, or none for long: it keeps its streams as long as it needs them."""
        try:
            async with asyncio.timeout(IDLE_SECONDS):
                return await stream.receive()
        except TimeoutError:
            return None

    async def handle(self, trainer: PeerId, delivery: Delivery, payloads: Sequence[Payload]) -> tuple[Answer, Payload]:
        """The answer, and the tensor that goes with it. Raises Rejected, NotComputed."""
        work, stage, accepted = delivery.work, self.stage, self._accepted
        outcome = self._refusal(work, trainer)
        if outcome is not None or stage is None or accepted is None:
            return self._refuse(work, outcome or "moved")
        digests = [digest(memoryview(payload)) for payload in payloads]
        if delivery.kept is not None:
            digests.insert(0, delivery.kept)
        passage = Passage(trainer, work.epoch, work.microbatch, work.inputs, digests[0])
        if delivery.kept is not None and not stage.has_kept(passage):
            return self._refuse(work, "forgotten")
        try:
            tensor, loss = await self._do(stage, passage, delivery, payloads, accepted)
        except EpochOver:
            return self._refuse(work, "late")
        except Forgotten:
            return self._refuse(work, "forgotten")
        except Moved:
            return self._refuse(work, "moved")
        asked = work_digest(work, *digests)
        if tensor is None:
            return Answer(outcome="done", work=asked, loss=loss, queue=self.queue), b""
        header, payload = await self._transport.in_thread(encode_tensor, tensor.numpy(), self._training.codec)
        self.answer_bytes[work.task] = header.payload_bytes
        answer = Answer(
            outcome="done",
            work=asked,
            tensor=header,
            payload=digest(memoryview(payload)),
            loss=loss,
            kept=work.task == "forward" and stage.has_kept(passage),
            queue=self.queue,
        )
        return answer, payload

    def _refuse(self, work: Work, outcome: Outcome) -> tuple[Answer, Payload]:
        return Answer(outcome=outcome, work=work_digest(work), queue=self.queue), b""

    def _refusal(self, work: Work, trainer: PeerId) -> Outcome | None:
        stage = self.stage
        if stage is None or stage.number != work.stage:
            return "moved"
        if not stage.ready.is_set():
            return "early"
        find = stage.parameters_at if work.task == "evaluate" else stage.parameters_of
        over = work.task != "evaluate" and work.epoch < stage.epoch - 1
        if over or find(work.epoch) is None:
            return "early" if work.epoch > stage.epoch else "late"
        if len(self._jobs) >= QUEUE_LIMIT or self._waiting[trainer] >= QUEUE_LIMIT_OF_ONE:
            return "busy"
        return None

    async def _do(
        self, stage: Stage, passage: Passage, delivery: Delivery, payloads: Sequence[Payload], accepted: Accepted
    ) -> tuple[Tensor | None, float | None]:
        """Raises Rejected, EpochOver, Forgotten, Moved, NotComputed."""
        work, trainer = delivery.work, passage.trainer
        self._waiting[trainer] += 1
        try:
            inputs = await self._decode(work.inputs, payloads[0], accepted.inputs) if delivery.kept is None else None
            other = await self._decode(work.other, payloads[-1], accepted.other) if work.other is not None else None
            if self.stage is not stage:
                raise Moved
            self._came += 1
            job = _Job(
                (_RANKS[work.task], work.epoch, self._came),
                work.task,
                Order(passage, inputs, other),
                asyncio.get_running_loop().create_future(),
            )
            self._jobs.append(job)
            self._arrived.notify()
            return await job.done
        finally:
            self._waiting[trainer] -= 1
            self._waiting += Counter()  # forgets the zeros

    async def _decode(self, header: TensorHeader, payload: Payload, accepted: tuple[TensorBounds, ...]) -> Tensor:
        values = await self._transport.in_thread(decode_tensor, header, payload, accepted)
        return torch.from_numpy(np.ascontiguousarray(values))

    async def _answer(self, stream: Stream, work: Work, answer: Answer, payload: Payload = b"") -> None:
        signed, size = self._signer.sign(answer, work.epoch), memoryview(payload).nbytes
        try:
            with self._receiving.answering(stream.peer, size):
                async with asyncio.timeout(TAKE_SECONDS):
                    await send_message(stream, signed.wire, [payload] if size else [])
        except TimeoutError:
            raise Rejected(Reason.UNEXPECTED, f"an answer was not taken within {TAKE_SECONDS:.0f} s") from None

    async def _count(self, trainer: PeerId, wire: bytes) -> bytes:
        """The mask of those that are counted here by now."""
        self._admit(trainer)
        statement = open_signed(wire, Count, run=self._signer.run, sender=trainer)
        return to_bytes(await self.count(statement))

    async def count(self, statement: Signed[Count]) -> int:
        """Raises Rejected."""
        stage, wanted = self.stage, from_bytes(statement.body.microbatches)
        if wanted > everything(self._training.microbatches):
            raise Rejected(Reason.UNEXPECTED, "an epoch has no such microbatches")
        if stage is None or stage.number != statement.body.stage:
            return 0
        if statement.epoch < stage.epoch:
            return wanted  # it was stepped with them
        elsewhere = wanted & await self._counted_elsewhere(stage, statement.epoch, statement.sender)
        return elsewhere | await stage.count(statement.epoch, wanted & ~elsewhere, statement.sender)

    async def _counted_elsewhere(self, stage: Stage, epoch: int, trainer: PeerId) -> int:
        """Of what waits here to be counted for that trainer: what another of our stage has counted, for all we know.
        Of two who have counted the same, one throws away all that it has.
        """
        known = self._known(stage.number, epoch) if epoch == stage.epoch else None
        if known is None:
            return 0
        fellows = from_bytes(known) & ~stage.open_epochs.get(epoch, 0)
        return fellows & await stage.waiting(epoch, trainer) if fellows else 0

    async def _cover(self, _peer: PeerId, _body: bytes) -> bytes:
        """A `Coverage`; nothing as long as no stage is served here."""
        stage = self.stage
        return self.coverage(stage).to_bytes() if stage is not None and stage.ready.is_set() else b""

    def coverage(self, stage: Stage) -> Coverage:
        counted = tuple(
            OpenEpoch(epoch=epoch, covered=to_bytes(covered)) for epoch, covered in sorted(stage.open_epochs.items())
        )
        known = self._known(stage.number, stage.epoch)
        return Coverage(stage=stage.number, epoch=stage.epoch, counted=counted, known=known)
