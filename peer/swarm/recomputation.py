"""Does a stage's work once more, to see what is right: with the parameters that this peer holds, or fetched ones."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import structlog
import torch

from dht.border import Border
from dht.interfaces import Transport
from peer.content_fetch import ContentNotFound, fetch_content
from peer.models.stages import activation_shape, stage_shape
from peer.swarm.compute import given_to_trainer
from peer.swarm.factory import StageFactory
from peer.swarm.microbatch import Tensor
from peer.swarm.previous import PreviousParameters
from peer.swarm.stage import EpochOver, Moved, Stage
from peer.sync import Heads, parse_state
from protocols.activations import TensorBounds, decode_tensor, encode_tensor
from protocols.identity import PeerId
from protocols.rejection import Rejected
from protocols.signed import Signer
from protocols.state import ModelState, state_size
from protocols.swarm.agreement import Product
from protocols.swarm.messages import Answer, Work
from protocols.vectors import Vector

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Assignment:
    """A work with its tensors."""

    work: Work
    tensors: tuple[Tensor, ...]


class Recomputation:
    def __init__(
        self,
        transport: Transport,
        signer: Signer,
        factory: StageFactory,
        previous: PreviousParameters,
        peers_at: Callable[[int], Iterable[PeerId]],
        held: Callable[[], Stage | None],
        border: Border,
    ) -> None:
        """`peers_at`: the others who serve a stage; `held`: ours."""
        self._transport, self._factory, self._previous = transport, factory, previous
        self._peers_at, self._held = peers_at, held
        self._heads = Heads(transport, signer, border)
        self._training = factory.training

    def serving(self, stage: int) -> Iterable[PeerId]:
        """The others who serve it."""
        return self._peers_at(stage)

    def outputs(self, work: Work) -> list[TensorBounds]:
        """What the tensor is like that comes of a work; of the first stage's backward pass comes none."""
        if work.stage:
            return [TensorBounds.exactly(work.inputs.shape)]
        if work.task == "backward":
            return []
        return [TensorBounds.exactly(activation_shape(self._factory.manifest, work.inputs.shape))]

    async def product(self, answer: Answer, tensor: Tensor | None, work: Work) -> Product:
        """What a peer has answered. Raises Rejected."""
        if tensor is None:
            return Product(None, answer.loss)
        values = await self._transport.in_thread(decode_tensor, tensor.header, tensor.payload, self.outputs(work))
        return Product(values, answer.loss)

    # -- recomputing -------------------------------------------------------------------------------------------------

    async def with_own(self, assignment: Assignment) -> Product | None:
        """None where we do not hold that stage's parameters of that epoch. Raises Rejected."""
        stage, work = self._held(), assignment.work
        if stage is None or stage.number != work.stage:
            return None
        try:
            inputs, other = await self._decoded(assignment)
            return await self._as_it_travels(*await stage.redo(work.epoch, inputs, other))
        except (EpochOver, Moved):
            return None

    async def with_fetched(self, assignment: Assignment) -> Product | None:
        """With what more than half of the stage's peers say its parameters are; None where they cannot be had.

        Holds a second stage for as long as it takes. Raises Rejected.
        """
        work = assignment.work
        parameters = await self._fetch(work.stage, max(0, work.epoch - self._training.delayed))
        if parameters is None:
            return None
        inputs, other = await self._decoded(assignment)

        def recompute() -> tuple[torch.Tensor | None, float | None]:
            last = work.stage == self._training.stages - 1
            return given_to_trainer(self._factory.compute(work.stage), parameters, inputs, other, last=last)

        return await self._as_it_travels(*await self._transport.in_thread(recompute))

    async def _decoded(self, assignment: Assignment) -> tuple[torch.Tensor, torch.Tensor | None]:
        accepted = self._factory.accepted(assignment.work.stage)
        tensors = [
            torch.from_numpy(
                np.ascontiguousarray(
                    await self._transport.in_thread(decode_tensor, tensor.header, tensor.payload, bounds)
                )
            )
            for tensor, bounds in zip(assignment.tensors, (accepted.inputs, accepted.other), strict=False)
        ]
        return tensors[0], tensors[1] if len(tensors) > 1 else None

    async def _as_it_travels(self, tensor: torch.Tensor | None, loss: float | None) -> Product:
        """As who is sent it gets it."""
        if tensor is None:
            return Product(None, loss)
        header, payload = await self._transport.in_thread(encode_tensor, tensor.numpy(), self._training.codec)
        bounds = [TensorBounds.exactly(header.shape)]
        return Product(await self._transport.in_thread(decode_tensor, header, payload, bounds), loss)

    # -- fetching ----------------------------------------------------------------------------------------------------

    async def _fetch(self, stage: int, epoch: int) -> Vector | None:
        """The stage's parameters at that epoch, as more than half of those name them who answer.

        A peer that lies about its work may lie about its state, too: of two who differ none is believed.
        """
        histories = await self._heads.ask(self._peers_at(stage))
        named = Counter(history[epoch] for history in histories.values() if epoch in history)
        digest = next((each for each, count in named.items() if 2 * count > len(histories)), None)
        if digest is not None:
            holders = [peer for peer, history in histories.items() if history.get(epoch) == digest]
            state = await self._fetch_state(stage, epoch, digest, holders)
            if state is not None:
                return state.parameters
        return await self._fetch_previous(stage, epoch)

    async def _fetch_state(self, stage: int, epoch: int, digest: bytes, holders: list[PeerId]) -> ModelState | None:
        like = await self._transport.in_thread(stage_shape, self._factory.manifest, stage)
        size = state_size(like.parameter_count, len(like.slots))
        try:
            content = await fetch_content(self._transport, digest, holders, size, self._transport.reject)
            state: ModelState = await self._transport.in_thread(parse_state, content, like)
        except (ContentNotFound, Rejected) as error:
            log.debug("a stage's state could not be fetched", stage=stage, epoch=epoch, error=str(error))
            return None
        return state if state.epoch == epoch else None

    async def _fetch_previous(self, stage: int, epoch: int) -> Vector | None:
        """Where the stage has stepped since, and keeps the parameters alone."""
        named = await self._previous.named(stage, epoch)
        total = sum(map(len, named.values()))
        address = next((each for each, holders in named.items() if 2 * len(holders) > total), None)
        if address is None:
            return None
        like = await self._transport.in_thread(stage_shape, self._factory.manifest, stage)
        return await self._previous.fetch(address, named[address], like.parameter_count)
