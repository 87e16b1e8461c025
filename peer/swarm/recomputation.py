"""Does a stage's work once more, to see what is right: with the parameters that this peer holds, or fetched ones.

Whoever knows the parameters can find inputs of which two honest machines make different things, such as a layer maps
to all but nothing: what is left is how each rounds. So a work is done with inputs that are nudged, too, by more than
rounding comes to; what differs then proves nothing (Higham 2002, “Accuracy and
Stability of Numerical Algorithms”, §1.6).
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial

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
from protocols.swarm.agreement import Product, agree
from protocols.swarm.messages import Answer, Work
from protocols.vectors import Vector

log = structlog.get_logger()

LARGEST = torch.finfo(torch.float32).max

Made = tuple[torch.Tensor | None, float | None]
"""What a work gives its trainer: a tensor, and on the last stage the loss."""

NUDGE = 3e-5
"""Of each input, up or down: some hundred times as much as rounding, some hundredth of what liars change."""


class IllConditioned(Exception):
    """A work of which honest machines may make different things."""


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
        tolerance: float,
    ) -> None:
        """`peers_at`: the others who serve a stage; `held`: ours. `tolerance`: as of `agree`."""
        self._transport, self._factory, self._previous = transport, factory, previous
        self._peers_at, self._held = peers_at, held
        self._heads = Heads(transport, signer, border)
        self._tolerance = tolerance
        self._random = torch.Generator().manual_seed(int.from_bytes(signer.secret("nudges")[:7], "big"))
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
        """None where we do not hold that stage's parameters of that epoch. Raises Rejected, IllConditioned."""
        stage, work = self._held(), assignment.work
        if stage is None or stage.number != work.stage:
            return None
        try:
            return await self._stable(assignment, partial(stage.redo, work.epoch))
        except (EpochOver, Moved):
            return None

    async def with_fetched(self, assignment: Assignment) -> Product | None:
        """With what more than half of the stage's peers say its parameters are; None where they cannot be had.

        Holds a second stage for as long as it takes. Raises Rejected, IllConditioned.
        """
        work = assignment.work
        parameters = await self._fetch(work.stage, max(0, work.epoch - self._training.delayed))
        if parameters is None:
            return None
        last = work.stage == self._training.stages - 1

        async def recompute(inputs: torch.Tensor, other: torch.Tensor | None) -> Made:
            made: Made = await self._transport.in_thread(
                lambda: given_to_trainer(self._factory.compute(work.stage), parameters, inputs, other, last=last)
            )
            return made

        return await self._stable(assignment, recompute)

    async def _stable(
        self, assignment: Assignment, redo: Callable[[torch.Tensor, torch.Tensor | None], Awaitable[Made]]
    ) -> Product:
        """Raises Rejected, IllConditioned."""
        inputs, other = await self._decoded(assignment)
        product = await self._as_it_travels(*await redo(inputs, other))
        nudged = await redo(self._nudge(inputs), None if other is None else self._nudge(other))
        if not agree(product, await self._as_it_travels(*nudged), self._tolerance):
            raise IllConditioned
        return product

    async def nudged(self, assignment: Assignment) -> list[Tensor]:
        """Its tensors, to ask another with; codecs that round take it away again, and most of what it is against, too.

        Raises Rejected.
        """
        codec, given = self._training.codec, [each for each in await self._decoded(assignment) if each is not None]
        return [await self._transport.in_thread(Tensor.of, self._nudge(each).numpy(), codec) for each in given]

    def _nudge(self, values: torch.Tensor) -> torch.Tensor:
        if not values.is_floating_point():
            return values
        nudged = values * (1 + NUDGE * (2 * torch.randint(2, values.shape, generator=self._random) - 1))
        return nudged.clamp(-LARGEST, LARGEST)

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
