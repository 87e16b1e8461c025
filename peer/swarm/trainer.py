"""Begins microbatches, and follows each through all stages until all have counted it.

It claims them from the keeper of the board, has many under way at once, and keeps what each stage was given until the
epoch is stepped: what is lost with a stage's peer is done again from there.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from math import ceil
from typing import Literal

import structlog

from dht.border import Border
from dht.interfaces import Transport, TransportError
from peer.data.dataset import Dataset
from peer.models.stages import activation_shape
from peer.signal import Signal
from peer.swarm.claims import Claims, Surroundings
from peer.swarm.client import StageClient
from peer.swarm.keeper import BoardKeeper
from peer.swarm.microbatch import Counted, Microbatch, Tensor
from peer.swarm.router import Untimely
from peer.swarm.spot_checks import SpotChecks
from protocols.activations import TensorBounds
from protocols.identity import PeerId
from protocols.manifest import Manifest, Pipeline
from protocols.rejection import Rejected
from protocols.sampling import microbatch_indices
from protocols.swarm.coverage import everything, from_bytes, lacked_by_half, numbers
from protocols.swarm.messages import OPEN_EPOCHS, Coverage, Grant, Work

CLAIM_SECONDS, IDLE_CLAIM_SECONDS = 0.3, 0.1
"""How often the board hears of us, at least; the second while we have nothing to do, as at an epoch's end."""
UNDER_WAY_PER_SERVER = 3
"""Microbatches of all trainers: one that is computed, one that is there, one on its way. With more of them, more wait
between their two passes through a stage, which keeps what it can of them in memory (`kept_passes`)."""
FEWEST_UNDER_WAY, MOST_UNDER_WAY = 2, 64
"""Of one trainer."""
LOST_SECONDS = 1.5
"""A stage that is said to lack what it has counted for us so long ago has lost it, unless its peer says otherwise."""
DISPUTE_SECONDS = 6.0
"""A keeper that still says otherwise is passed over: an honest one would have heard of it (`keeper.ANSWER_SECONDS`)."""
COUNT_ATTEMPTS = 2
"""Who is slow may have counted, or be about to; of two who have counted the same, one loses more than that."""

log = structlog.get_logger()


class PipelineTrainer:
    def __init__(
        self,
        transport: Transport,
        manifest: Manifest,
        dataset: Dataset,
        stages: SpotChecks,
        client: StageClient,
        keeper: BoardKeeper,
        run: Surroundings,
        border: Border,
        on_loss: Callable[[float], None],
    ) -> None:
        assert isinstance(manifest.training, Pipeline)
        self.microbatches_done = 0
        """That all stages have counted for us."""
        self.replays = 0
        """Parts of microbatches that were done again, because they were lost with a peer."""
        self._transport, self._manifest, self._training = transport, manifest, manifest.training
        self._dataset, self._stages, self._client = dataset, stages, client
        self._run, self._border, self._on_loss = run, border, on_loss
        self._claims = Claims(transport, manifest, keeper, run)
        self._held: dict[tuple[int, int], Microbatch] = {}
        self._working: dict[tuple[int, int], asyncio.Task[None]] = {}
        self._changed = Signal()
        self._depth = FEWEST_UNDER_WAY
        """So many microbatches are under way at once."""

    # -- claiming ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                grant, self._depth = None, self._suitable_depth
                self._drop_before(self._oldest)  # whatever the keeper says
                async with self._border.around("claiming microbatches"):
                    keeper = self._claims.choose_keeper(working=bool(self._working))
                    if keeper is not None:
                        grant = await self._claims.claim(keeper, self._at_work_on, self._depth - len(self._working))
                    if keeper is not None and grant is not None:
                        self._act(keeper, grant, tasks)
                idle = grant is None or len(self._working) < self._depth
                with suppress(TimeoutError):
                    async with asyncio.timeout(CLAIM_SECONDS if self._working else IDLE_CLAIM_SECONDS):
                        await self._changed.wait()
                if idle:
                    await self._transport.clock.sleep(0.02)  # of several that end together one claim tells

    @property
    def _suitable_depth(self) -> int:
        """Our share of what keeps all who serve a stage busy."""
        together = UNDER_WAY_PER_SERVER * len(self._run.servers())
        return min(MOST_UNDER_WAY, max(FEWEST_UNDER_WAY, ceil(together / max(1, len(self._run.trainers())))))

    @property
    def _oldest(self) -> int:
        """Those before it all stages have stepped long ago: nothing of them is kept, or begun."""
        return self._run.epoch() - OPEN_EPOCHS

    @property
    def _at_work_on(self) -> dict[int, int]:
        """Epoch → mask of the microbatches that we have."""
        held: dict[int, int] = {}
        for epoch, number in self._held:
            held[epoch] = held.get(epoch, 0) | 1 << number
        return held

    def _act(self, keeper: PeerId, grant: Grant, tasks: asyncio.TaskGroup) -> None:
        if not grant.standings or any(len(each.missing) != self._training.stages for each in grant.standings):
            return
        self._drop_before(grant.standings[0].epoch)
        now = self._transport.clock.monotonic()
        for standing in grant.standings:
            missing = list(map(from_bytes, standing.missing))
            if standing.epoch == grant.epoch:
                for number in numbers(from_bytes(grant.granted) & everything(self._training.microbatches)):
                    if len(self._working) < self._depth:
                        self._begin(keeper, standing.epoch, number, missing, tasks)
            for (epoch, number), microbatch in self._held.items():
                if epoch == standing.epoch and (epoch, number) not in self._working:
                    lacking = {stage for stage, mask in enumerate(missing) if mask >> number & 1}
                    microbatch.hear(lacking)
                    lost = {stage for stage in lacking if microbatch.lost(stage, now, LOST_SECONDS)}
                    if lost:
                        self._start(microbatch, partial(self._make_up, microbatch, lost, keeper), tasks)

    def _drop_before(self, epoch: int) -> None:
        """Those epochs are stepped."""
        for key in [key for key in self._held if key[0] < epoch]:
            del self._held[key]
            if (task := self._working.pop(key, None)) is not None:
                task.cancel()

    def _begin(self, keeper: PeerId, epoch: int, number: int, missing: list[int], tasks: asyncio.TaskGroup) -> None:
        wanted = {stage for stage, mask in enumerate(missing) if mask >> number & 1}
        if (epoch, number) in self._held or not wanted or epoch < self._oldest:
            return
        microbatch = self._held[epoch, number] = Microbatch(epoch, number, keeper, wanted)
        self._start(microbatch, partial(self._follow, microbatch), tasks)

    def _start(self, microbatch: Microbatch, work: Callable[[], Awaitable[None]], tasks: asyncio.TaskGroup) -> None:
        key = microbatch.epoch, microbatch.number
        self._working[key] = tasks.create_task(self._work(microbatch, work))

    async def _work(self, microbatch: Microbatch, work: Callable[[], Awaitable[None]]) -> None:
        key = microbatch.epoch, microbatch.number
        try:
            async with self._border.around("a microbatch"):
                try:
                    await work()
                except* Untimely:
                    self._held.pop(key, None)
                    self._claims.pass_over(microbatch.keeper)
        finally:
            if self._working.get(key) is asyncio.current_task():
                del self._working[key]
            self._changed.notify()

    async def _make_up(self, microbatch: Microbatch, lost: set[int], keeper: PeerId) -> None:
        """Does again what the keeper says that some stages have lost; but not at once what these say to have."""
        for stage in list(lost):
            counted = microbatch.counted.get(stage)
            if counted is not None:
                if await self._is_counted(microbatch, stage, counted.peer) and self._is_believed(counted, keeper):
                    lost.remove(stage)
                    continue
                if counted.passed_over is not None:
                    self._claims.forgive(counted.passed_over)
                self._stages.blame(stage, counted.peer)
                del microbatch.counted[stage]
        microbatch.wanted |= lost
        self.replays += len(lost)
        if lost:
            await self._follow(microbatch)

    def _is_believed(self, counted: Counted, keeper: PeerId) -> bool:
        """Whether a peer that says to have counted it is believed rather than the keeper; two keepers are."""
        now = counted.at = self._transport.clock.monotonic()
        if counted.doubted_by != keeper:
            counted.doubted_by, counted.doubted_since = keeper, now
        elif now - counted.doubted_since > DISPUTE_SECONDS:
            if counted.passed_over is not None:
                return False
            counted.passed_over = keeper
            self._claims.pass_over(keeper)
        return True

    async def _is_counted(self, microbatch: Microbatch, stage: int, peer: PeerId) -> bool:
        """Whether `peer` says so, as it would to a keeper, and its stage knows of it.

        Who serves no stage any more, or is banned, has nothing.
        """
        if peer not in self._run.servers():
            return False
        word = await self._word(peer, stage)
        if word is None or word.epoch > microbatch.epoch:
            return word is not None
        covered = {each.epoch: from_bytes(each.covered) for each in word.counted}
        if not covered.get(microbatch.epoch, 0) >> microbatch.number & 1:
            return False
        fellows = [fellow for fellow in self._stages.serving(stage) if fellow != peer]
        words = [word, *await asyncio.gather(*(self._word(fellow, stage) for fellow in fellows))]
        of_its_epoch = [w.known for w in words if w is not None and w.epoch == microbatch.epoch]
        known = [None if mask is None else from_bytes(mask) for mask in of_its_epoch]
        return not lacked_by_half(1 << microbatch.number, known)

    async def _word(self, peer: PeerId, stage: int) -> Coverage | None:
        """What it says to have counted of that stage."""
        try:
            word = await self._client.coverage(peer)
        except (TransportError, Rejected) as error:
            log.debug("a stage's peer does not say what it has counted", stage=stage, peer=peer, error=str(error))
            return None
        return word if word is not None and word.stage == stage else None

    # -- following ---------------------------------------------------------------------------------------------------

    async def _follow(self, microbatch: Microbatch) -> None:
        """Forward as far as it takes, then back to the first stage that lacks it."""
        last = self._training.stages - 1
        if 0 not in microbatch.inputs:
            inputs, targets = await self._transport.in_thread(self._data, microbatch)
            microbatch.inputs[0], microbatch.others[last] = inputs, targets
        for stage in range(last):
            if stage + 1 not in microbatch.inputs and not self._has_all(microbatch):
                microbatch.inputs[stage + 1] = await self._forward(microbatch, stage)
        async with asyncio.TaskGroup() as counting:
            for stage in range(last, microbatch.lowest - 1, -1):
                needs_gradient = stage > microbatch.lowest and stage - 1 not in microbatch.others
                if needs_gradient or stage in microbatch.wanted - microbatch.counted.keys():
                    peer = await self._backward(microbatch, stage)
                    if stage in microbatch.wanted:
                        counting.create_task(self._count(microbatch, stage, peer))
        if microbatch.complete:
            self.microbatches_done += 1

    def _has_all(self, microbatch: Microbatch) -> bool:
        """Whether the stages that lack it can do their part from what we have."""
        lacking = microbatch.wanted - microbatch.counted.keys()
        return all(stage in microbatch.inputs and stage in microbatch.others for stage in lacking)

    def _data(self, microbatch: Microbatch) -> tuple[Tensor, Tensor]:
        size = self._training.batch_size
        indices = microbatch_indices(
            self._manifest.run_id, microbatch.epoch, microbatch.number, size, self._dataset.train_size
        )
        inputs, targets = self._dataset.batch(indices)
        return Tensor.of(inputs.numpy(), self._training.codec), Tensor.of(targets.numpy(), self._training.codec)

    async def _forward(self, microbatch: Microbatch, stage: int) -> Tensor:
        given = microbatch.inputs[stage]
        work = self._order("forward", microbatch, stage, given, None)
        peer, reply = await self._stages.ask(work, [given], [self._bounds(microbatch)])
        if reply.answer.kept:
            microbatch.kept_by[stage] = peer
        assert reply.tensor is not None
        return reply.tensor

    async def _backward(self, microbatch: Microbatch, stage: int) -> PeerId:
        """Who has done it; the gradient of its inputs is noted, unless we have it."""
        given, other = microbatch.inputs[stage], microbatch.others[stage]
        work = self._order("backward", microbatch, stage, given, other)
        accepted = [self._bounds(microbatch)] if stage else []
        is_known = stage - 1 in microbatch.others
        if is_known:
            peer, reply = await self._stages.ask_again(work, [given, other], accepted)
        else:
            wanted = microbatch.kept_by.pop(stage, None)  # for one backward pass
            peer, reply = await self._stages.ask(work, [given, other], accepted, wanted=wanted)
        if reply.answer.loss is not None:
            self._on_loss(reply.answer.loss)
            microbatch.loss = reply.answer.loss
        if stage and reply.tensor is not None and not is_known:
            microbatch.others[stage - 1] = reply.tensor
        return peer

    async def _count(self, microbatch: Microbatch, stage: int, peer: PeerId) -> None:
        """Has `peer` count it; if it cannot, somebody does the stage's part again."""
        while not await self._has_counted(microbatch, stage, peer):
            self.replays += 1
            peer = await self._backward(microbatch, stage)
        microbatch.counted[stage] = Counted(peer, self._transport.clock.monotonic())

    async def _has_counted(self, microbatch: Microbatch, stage: int, peer: PeerId) -> bool:
        """Who says that it has not, though it has done it, gets no work for a moment."""
        wanted = 1 << microbatch.number
        for _ in range(COUNT_ATTEMPTS):
            try:
                if await self._client.count(peer, stage, microbatch.epoch, wanted) == wanted:
                    return True
                self._stages.blame(stage, peer)
                return False
            except (TransportError, Rejected) as error:
                log.debug("a count is not answered", stage=stage, peer=peer, error=str(error))
        return False

    def _order(
        self,
        task: Literal["forward", "backward"],
        microbatch: Microbatch,
        stage: int,
        given: Tensor,
        other: Tensor | None,
    ) -> Work:
        return Work(
            task=task,
            epoch=microbatch.epoch,
            stage=stage,
            microbatch=microbatch.number,
            inputs=given.header,
            other=other.header if other is not None else None,
        )

    def _bounds(self, microbatch: Microbatch) -> TensorBounds:
        """Of what a stage gives, and of the gradient of what it takes."""
        return TensorBounds.exactly(activation_shape(self._manifest, microbatch.inputs[0].header.shape))
