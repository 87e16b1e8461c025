"""The whole model at one epoch as a function: each batch passes through a peer of every stage.

What passes between stages is encoded as in training, so what comes out is what training sees.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from itertools import count

import structlog
import torch
from torch import Tensor as Values

from dht.interfaces import Transport, TransportError
from peer.models.stages import activation_shape, output_shape
from peer.swarm.client import StageClient
from peer.swarm.microbatch import Tensor
from peer.tasks import first_of
from protocols.activations import TensorBounds, decode_tensor
from protocols.identity import PeerId
from protocols.manifest import Manifest, Pipeline
from protocols.rejection import Rejected
from protocols.swarm.messages import Work

RETRY_SECONDS = 0.2
"""Between two looks for a peer that has time."""
PASS_SECONDS = 60.0
"""A batch waits until a stage's peer has nothing else to do."""

log = structlog.get_logger()


class GivenUp(Exception):
    """There will be no outputs; the message says why."""


class Passes:
    def __init__(
        self,
        transport: Transport,
        manifest: Manifest,
        client: StageClient,
        peers: Callable[[], Mapping[int, Iterable[PeerId]]],
        epoch: int,
        over: Callable[[], bool],
    ) -> None:
        """`peers`: by stage, who serves it; `over`: whether it is time to give up."""
        assert isinstance(manifest.training, Pipeline)
        self._transport, self._training, self._client = transport, manifest.training, client
        self._peers, self._epoch, self._over = peers, epoch, over
        self._between = partial(activation_shape, manifest)
        self._out = cache(partial(output_shape, manifest))
        self._turn = count()
        self._useless: set[PeerId] = set()
        """Who has left the epoch behind, or answers with something that is no output."""

    async def outputs(self, inputs: Values) -> Values:
        """Of the whole model; as many microbatches are under way as there are stages. Raises GivenUp."""
        gate = asyncio.Semaphore(self._training.stages)

        async def one(batch: Values) -> Values:
            async with gate:
                return await self._through(batch)

        try:
            async with asyncio.TaskGroup() as tasks:
                made = [tasks.create_task(one(batch)) for batch in torch.split(inputs, self._training.batch_size)]
        except BaseExceptionGroup as group:
            raise first_of(group) from group
        return torch.cat([task.result() for task in made])

    async def _through(self, batch: Values) -> Values:
        shape, stages = tuple(batch.shape), self._training.stages
        between = TensorBounds.exactly(self._between(shape))
        last = TensorBounds.exactly(await self._transport.in_thread(self._out, shape))
        tensor: Tensor = await self._transport.in_thread(Tensor.of, batch.numpy(), self._training.codec)
        for stage in range(stages):
            tensor = await self._pass(stage, tensor, last if stage == stages - 1 else between)
        outputs = await self._transport.in_thread(decode_tensor, tensor.header, tensor.payload, [last])
        return torch.from_numpy(outputs)

    async def _pass(self, stage: int, given: Tensor, accepted: TensorBounds) -> Tensor:
        """What the stage makes of it; tries until somebody does it."""
        work = Work(task="evaluate", epoch=self._epoch, stage=stage, microbatch=0, inputs=given.header, other=None)
        while True:
            serving = sorted(self._peers().get(stage, ()))
            useful = [peer for peer in serving if peer not in self._useless]
            if self._over():
                raise GivenUp("the next one is due")
            if serving and not useful:
                raise GivenUp(f"nobody at stage {stage} can do it")
            if useful:
                peer = useful[next(self._turn) % len(useful)]
                if (tensor := await self._ask(peer, work, given, accepted)) is not None:
                    return tensor
            await self._transport.clock.sleep(RETRY_SECONDS)

    async def _ask(self, peer: PeerId, work: Work, given: Tensor, accepted: TensorBounds) -> Tensor | None:
        try:
            reply = await self._client.ask(peer, work, [given.payload], [accepted], PASS_SECONDS)
        except TransportError as error:
            log.debug("a batch to evaluate is not done", stage=work.stage, peer=peer, error=str(error))
            return None
        except Rejected as error:
            self._transport.reject(peer, error.reason, str(error))
            self._useless.add(peer)
            return None
        if reply.answer.outcome == "late":
            self._useless.add(peer)
        return reply.tensor
