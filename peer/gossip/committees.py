"""The rounds of a run with sampled committees, as one member plays them (`protocols.gossip.committee`).

A trainer of round k is sent the model of round k by its aggregators, trains, and sends what it has made to the
aggregators of round k + 1; each of those takes the mean when enough are there, shows it as the state of round k + 1,
and sends it to the trainers of that round. Who is in no committee does nothing and knows nothing of it.

Progress needs no particular member: committees are made of those who answer, a model comes from several aggregators,
and a fraction of the trainers is enough. Should a whole committee vanish, those who hold the newest state begin its
round again when nobody has come further for a while.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Literal, Protocol

import structlog

from dht.border import Border
from dht.interfaces import Frame, Stream, TimedOut, Transport, TransportError
from peer.gossip.exchanges import Counts
from peer.gossip.models import MODEL_FRAME_BYTES, Encoded, encoded_bytes, receive_chunks, send_model
from peer.gossip.patience import FIRST_SECONDS, FIRST_SILENCE_SECONDS
from peer.gossip.reached import Reached
from peer.signal import Signal
from peer.streams import next_request
from protocols.admission import Admission
from protocols.codecs import Codec
from protocols.gossip.committee import Aggregation, Sampling, newest_round
from protocols.gossip.messages import CommitteeModel
from protocols.identity import PeerId
from protocols.manifest import Committee
from protocols.rejection import Reason, Rejected
from protocols.round.order import order
from protocols.signed import ReplayGuard, Signed, Signer, open_signed
from protocols.vectors import Vector

PING_KIND = "committee-ping"
MODEL_KIND = "committee-model"
PING_SECONDS = 1.0
"""Who does not answer for so long is in no committee of this round."""
TAKEN = Frame(b"taken")
WAIT_SECONDS = 5.0
"""An aggregator waits so long for the models that it lacks, or WAIT_ROUNDS times as long as rounds usually take."""
WAIT_ROUNDS = 3.0
REPEAT_SECONDS = 10.0
"""When nobody has come further for so long, or for REPEAT_ROUNDS times as long as rounds usually take, …"""
REPEAT_ROUNDS = 6.0
"""… those who hold the newest state begin its round again: as many as aggregate, twice as many each next time."""
AGGREGATIONS_KEPT = 2
MODELS_AT_ONCE = 8
HAND_SECONDS = 1.0
"""So long a member waits until those have its model to whom it hands it; what takes longer goes on beside the rest."""

Task = Literal["train", "aggregate"]

log = structlog.get_logger()


class CommitteeHost(Protocol):
    """The member that plays."""

    async def train(self, number: int, model: Vector) -> tuple[Vector, int]:
        """What becomes of the model in round `number`, and the samples behind it. Raises ArithmeticError."""

    async def hold(self, number: int, model: Vector) -> None:
        """The state of round `number` has this model; others may have it from us."""

    def held(self) -> tuple[int, Vector]:
        """The newest round whose state we hold, and its model."""

    def holders(self) -> dict[PeerId, int]:
        """All members who train, this one too, and the newest rounds of which they hold the states."""


class Committees:
    def __init__(
        self,
        host: CommitteeHost,
        transport: Transport,
        signer: Signer,
        spec: Committee,
        rounds: int,
        most_samples: int,
        codec: Codec,
        admission: Admission,
        border: Border,
    ) -> None:
        """`rounds`: of the run. `most_samples`: of one trainer in a round."""
        self.counts = Counts()
        self._host, self._transport, self._signer = host, transport, signer
        self._spec, self._rounds, self._most_samples, self._codec = spec, rounds, most_samples, codec
        self._admission, self._border = admission, border
        self._replays = ReplayGuard()
        self._aggregations: dict[int, Aggregation] = {}
        self._begun: dict[int, float] = {}
        """When each of them was."""
        self._task: tuple[int, Vector] | None = None
        """What to train next."""
        self._trained = -1
        """The newest round that we have trained in …"""
        self._made: tuple[Vector, int] | None = None
        """… and what has come of it; None while it has not."""
        self._wanted = Signal()
        self._handing: asyncio.TaskGroup
        self._taking: dict[PeerId, asyncio.Task[None]] = {}
        """Whom a model is handed to; who takes longer than the others does so beside the next rounds."""
        self._receiving = asyncio.Semaphore(MODELS_AT_ONCE)
        self._sending: set[PeerId] = set()
        """Whose models are being received, or wait for it."""
        self._reached = Reached(host.holders, spec.aggregators)
        self._answering = 1.0
        """How many of those who are asked answer, on average of late."""
        self._newest, self._newest_at, self._begins = -1, transport.clock.monotonic(), 0
        """The newest round that anybody has come to, since when, and how often it was time to begin it again."""
        self._round_seconds = 0.0

    async def start(self) -> None:
        """From now on others are answered."""
        await self._transport.serve_requests(PING_KIND, self._answer_ping, 64)
        await self._transport.serve_streams(MODEL_KIND, self._serve, MODEL_FRAME_BYTES)

    def hear_of_members(self) -> None:
        """One of them has said what it holds, or is gone."""
        self._reached.look_again()

    async def run(self) -> None:
        """Plays until the last round's state is held by most of those who aggregate it."""
        async with asyncio.TaskGroup() as self._handing:
            while self._newest_of(self._host.holders()) < self._rounds:
                async with self._border.around("a committee's round"):
                    await self._play()
            for task in self._taking.values():
                task.cancel()

    async def _play(self) -> None:
        """Does what is to be done next, or waits for it a little."""
        if ripe := [number for number in self._aggregations if self._is_ripe(number)]:
            await self._aggregate(max(ripe))
        elif self._task is not None:
            await self._train()
        elif self._should_begin():
            await self._hand_to_trainers(*self._host.held())
        else:
            with suppress(TimeoutError):
                async with asyncio.timeout(PING_SECONDS):
                    await self._wanted.wait()

    # -- what a committee does ----------------------------------------------------------------------------------------

    async def _aggregate(self, number: int) -> None:
        aggregation = self._aggregations[number]
        self._forget(number)
        model = await self._transport.in_thread(aggregation.mean)
        await self._host.hold(number, model)
        self._reached.look_again()
        log.debug("aggregated", round=number, models=len(aggregation.trainers))
        if number < self._rounds:
            await self._hand_to_trainers(number, model)

    async def _train(self) -> None:
        assert self._task is not None
        (number, model), self._task = self._task, None
        if number > self._trained:
            self._trained, self._made = number, None
            try:
                self._made = await self._host.train(number, model)
            except ArithmeticError:
                log.warning("training does not end in a finite model", round=number)
        if self._made is not None:  # or once more, as its round has begun again
            await self._hand_to(
                await self._sample(number + 1, self._spec.aggregators), number + 1, "aggregate", *self._made
            )

    async def _hand_to_trainers(self, number: int, model: Vector) -> None:
        committee = await self._sample(number, self._spec.aggregators + self._spec.trainers)
        trainers = committee[-self._spec.trainers :]  # who aggregate train too, where there are so few
        await self._hand_to(trainers, number, "train", model, 0)

    def _is_ripe(self, number: int) -> bool:
        """Whether to aggregate now: there are enough models, or the others are not worth to be waited for."""
        waited = self._transport.clock.monotonic() - self._begun[number]
        return self._aggregations[number].complete or waited > self._wait_seconds

    def _should_begin(self) -> bool:
        """Whether it is for us to begin a round: we hold the newest state, and nobody has come further for too long."""
        holders, now = self._host.holders(), self._transport.clock.monotonic()
        newest = self._newest_of(holders)
        if newest > self._newest:
            if self._newest >= 0:
                self._round_seconds = (now - self._newest_at) / (newest - self._newest)
            self._newest, self._newest_at, self._begins = newest, now, 0
        elif now - self._newest_at > max(REPEAT_SECONDS, REPEAT_ROUNDS * self._round_seconds):
            self._newest_at, self._begins = now, self._begins + 1
        else:
            return False
        if self._begins == 0 and newest > 0:
            return False  # whoever has come there has handed its state on
        holding = [peer for peer, held in holders.items() if newest <= held < self._rounds]
        first = order(self._signer.run, newest, holding)[: self._spec.aggregators << min(self._begins, 16)]
        return self._transport.peer_id in first

    def _newest_of(self, holders: Mapping[PeerId, int]) -> int:
        return newest_round(holders.values(), self._spec.aggregators)

    # -- sampling -----------------------------------------------------------------------------------------------------

    async def _sample(self, number: int, wanted: int) -> list[PeerId]:
        """The first of that round's order who answer."""
        spare = round(wanted * (1 / max(0.1, self._answering) - 1))
        sampling = Sampling(self._signer.run, number, self._host.holders(), wanted, spare)
        while asked := sampling.ask():
            async with asyncio.TaskGroup() as tasks:
                for peer in asked:
                    tasks.create_task(self._ping(peer, sampling))
        return sampling.sample

    async def _ping(self, peer: PeerId, sampling: Sampling) -> None:
        answers = peer == self._transport.peer_id
        if not answers:
            try:
                await self._transport.request(peer, PING_KIND, b"", PING_SECONDS)
                answers = True
            except TransportError as error:
                log.debug("no answer to a ping", peer=peer, error=str(error))
            self._answering += 0.1 * (answers - self._answering)
        sampling.hear(peer, answers=answers)

    async def _answer_ping(self, _peer: PeerId, _body: bytes) -> bytes:
        return b""

    # -- models -------------------------------------------------------------------------------------------------------

    async def _hand_to(self, peers: Sequence[PeerId], number: int, task: Task, model: Vector, samples: int) -> None:
        """Returns when those who are quick have it. Who still takes the last one gets none."""
        encoded = await self._transport.in_thread(Encoded.of, model, self._codec)
        takers = [peer for peer in peers if peer not in self._taking]
        for peer in takers:
            if peer == self._transport.peer_id:
                self._take(peer, number, task, encoded.values, samples)
            else:
                self._taking[peer] = self._handing.create_task(self._hand(peer, number, task, encoded, samples))
        if handing := [self._taking[peer] for peer in takers if peer in self._taking]:
            await asyncio.wait(handing, timeout=HAND_SECONDS)

    async def _hand(self, peer: PeerId, number: int, task: Task, model: Encoded, samples: int) -> None:
        try:
            async with self._border.around("handing a model on"):
                await self._give(peer, number, task, model, samples)
        finally:
            del self._taking[peer]

    async def _give(self, peer: PeerId, number: int, task: Task, model: Encoded, samples: int) -> None:
        body = CommitteeModel(to=peer, task=task, samples=samples, chunks=model.update.digests)
        head = self._signer.sign(body, number)
        try:
            async with asyncio.timeout(self._hand_seconds):
                async with await self._transport.open_stream(peer, MODEL_KIND) as stream:
                    await send_model(stream, head, model)
                    async with asyncio.timeout(FIRST_SILENCE_SECONDS):
                        await stream.receive()
        except (TransportError, Rejected, TimeoutError) as error:
            self.counts.failed += 1
            log.debug("a model was not taken", peer=peer, round=number, error=str(error))
        else:
            self.counts.completed += 1
            self.counts.last_peer = peer
            self.counts.bytes_sent += model.size_bytes

    async def _serve(self, stream: Stream) -> None:
        frame = await next_request(stream)
        if frame is None:
            return
        self._admission.require(stream.peer, self._transport.clock.wall())
        head = open_signed(frame.header, CommitteeModel, run=self._signer.run, sender=stream.peer)
        self._replays.admit(head)
        self._check(head)
        if self._is_wanted(head.epoch, head.body.task):
            await self._receive(stream, head)
        await stream.send(TAKEN)

    async def _receive(self, stream: Stream, head: Signed[CommitteeModel]) -> None:
        """Raises Rejected, TransportError."""
        sender, task = stream.peer, head.body.task
        if sender in self._sending:
            raise Rejected(Reason.BUSY, "one model of each at a time")
        self._sending.add(sender)
        try:
            await self._until_due(sender, head.epoch, task)
            async with self._receiving, asyncio.timeout(self._model_seconds):
                elements = len(self._host.held()[1])
                model = await receive_chunks(
                    stream, head.body.chunks, elements, self._codec, self._transport, FIRST_SILENCE_SECONDS
                )
        except TimeoutError as error:
            raise TimedOut(f"a model of {sender} takes longer than a round") from error
        finally:
            self._sending.discard(sender)
        self.counts.bytes_received += encoded_bytes(elements, self._codec)
        self._take(sender, head.epoch, task, model, head.body.samples)

    async def _until_due(self, sender: PeerId, number: int, task: Task) -> None:
        """Until the round before `number` is reached. Raises Rejected: busy, when it is not within a round's time."""
        self._reached.hear_head(sender, number if task == "train" else number - 1)
        try:
            async with asyncio.timeout(self._wait_seconds):
                await self._reached.wait_for(number - 1)
        except TimeoutError as error:
            newest = self._reached.newest
            raise Rejected(Reason.BUSY, f"a model of round {number}, where most have come to {newest}") from error

    @property
    def _model_seconds(self) -> float:
        """No aggregator waits longer for a model."""
        return self._wait_seconds if self._round_seconds else FIRST_SECONDS

    @property
    def _hand_seconds(self) -> float:
        """Nobody who takes a model waits for it longer."""
        return self._wait_seconds + self._model_seconds

    @property
    def _wait_seconds(self) -> float:
        return max(WAIT_SECONDS, WAIT_ROUNDS * self._round_seconds)

    def _check(self, head: Signed[CommitteeModel]) -> None:
        """Raises Rejected."""
        if head.body.to != self._transport.peer_id:
            raise Rejected(Reason.UNEXPECTED, "a model for somebody else")
        if head.epoch > self._rounds:
            raise Rejected(Reason.UNEXPECTED, f"a model of round {head.epoch} of {self._rounds}")
        if head.body.samples > self._most_samples:
            raise Rejected(Reason.UNEXPECTED, f"{head.body.samples} samples in a round, more than one can have")

    def _is_wanted(self, number: int, task: Task) -> bool:
        if task == "train":
            return number >= self._trained and (self._task is None or number > self._task[0])
        aggregation = self._aggregations.get(number)
        return number > self._host.held()[0] and (aggregation is None or not aggregation.complete)

    def _take(self, sender: PeerId, number: int, task: Task, model: Vector, samples: int) -> None:
        if not self._is_wanted(number, task):
            return
        if task == "train":
            self._task = number, model
        else:
            if number not in self._aggregations:
                self._aggregations[number] = Aggregation(self._spec.trainers, self._spec.fraction)
                self._begun[number] = self._transport.clock.monotonic()
            self._aggregations[number].add(sender, model, samples)
            if len(self._aggregations) > AGGREGATIONS_KEPT:
                self._forget(min(self._aggregations))
        self._wanted.notify()

    def _forget(self, number: int) -> None:
        """The aggregations up to that of round `number`."""
        for old in [old for old in self._aggregations if old <= number]:
            del self._aggregations[old], self._begun[old]
