"""What a trainer of a pipeline may order or keep to itself, and a keeper of its board keep back or make up."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from dht.interfaces import RequestHandler, Transport, TransportError
from peer.data.dataset import Dataset, Predict
from peer.misbehaviour.lying_transport import LyingTransport
from peer.swarm.keeper import CLAIM_KIND
from protocols.identity import PeerId
from protocols.manifest import MAX_MICROBATCHES
from protocols.rejection import Rejected
from protocols.sampling import Indices
from protocols.signed import Signer
from protocols.swarm.coverage import everything, from_bytes, numbers, to_bytes
from protocols.swarm.messages import Claim, Grant, OpenEpoch

_EVERY = to_bytes(everything(MAX_MICROBATCHES))
_HALF = sum(1 << number for number in range(0, MAX_MICROBATCHES, 2))

HOARD_SECONDS = 0.25

Given = dict[str, Any]
"""What `assemble` is given."""


class Garbage(Dataset):
    """Noise of the data's shape, with the labels of others."""

    def __init__(self, honest: Dataset) -> None:
        self._honest = honest
        self.train_size = honest.train_size

    def batch(self, indices: Indices) -> tuple[Tensor, Tensor]:
        inputs, targets = self._honest.batch(indices)
        noise = torch.randn(inputs.shape) * 100 if inputs.is_floating_point() else inputs.roll(1, -1)
        return noise, targets.roll(1, 0)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self._honest.loss(outputs, targets)

    def evaluate(self, model: Predict, limit: int) -> dict[str, float]:
        return self._honest.evaluate(model, limit)


def garbage_work(given: Given) -> Given:
    open_honest: Callable[[], Awaitable[Dataset]] = given["open_data"]

    async def open_data() -> Dataset:
        return Garbage(await open_honest())

    return given | {"open_data": open_data}


class Hoarder(LyingTransport):
    """Tells all whom it has met that it is at work on all microbatches, and does nothing."""

    def __init__(self, transport: Transport, signer: Signer) -> None:
        super().__init__(transport, signer)
        self._hoarding: dict[PeerId, asyncio.Task[None]] = {}
        self._epoch = 0

    async def request(self, peer: PeerId, kind: str, body: bytes, timeout_seconds: float) -> bytes:
        if peer not in self._hoarding:
            self._hoarding[peer] = asyncio.create_task(self._hoard(peer))
        if kind == CLAIM_KIND:
            return Grant(epoch=0, granted=b"", standings=()).to_bytes()
        return await super().request(peer, kind, body, timeout_seconds)

    async def _hoard(self, keeper: PeerId) -> None:
        while True:
            held = tuple(OpenEpoch(epoch=epoch, covered=_EVERY) for epoch in range(self._epoch, self._epoch + 2))
            body = Claim(held=held, wanted=0).to_bytes()
            with suppress(TransportError, Rejected):
                grant = Grant.from_bytes(await super().request(keeper, CLAIM_KIND, body, HOARD_SECONDS))
                self._epoch = max([self._epoch, *(standing.epoch for standing in grant.standings)])
            await self.clock.sleep(HOARD_SECONDS)

    async def close(self) -> None:
        for task in self._hoarding.values():
            task.cancel()
        await super().close()


def hoarded_microbatches(given: Given) -> Given:
    return given | {"transport": Hoarder(given["transport"], given["signer"])}


class IdleKeeper(LyingTransport):
    """Has nothing to do for whoever claims microbatches, and says that nothing is missing."""

    async def serve_requests(self, kind: str, handler: RequestHandler, *limits: int) -> None:
        async def nothing(_peer: Any, _claim: bytes) -> bytes:
            return Grant(epoch=0, granted=b"", standings=()).to_bytes()

        await super().serve_requests(kind, nothing if kind == CLAIM_KIND else handler, *limits)


def idle_keeper(given: Given) -> Given:
    return given | {"transport": IdleKeeper(given["transport"], given["signer"])}


class BusyKeeper(LyingTransport):
    """Hands out half of the microbatches, to each trainer the same, and says that nothing else is missing."""

    async def serve_requests(self, kind: str, handler: RequestHandler, *limits: int) -> None:
        async def some(peer: PeerId, body: bytes) -> bytes:
            grant, claim = Grant.from_bytes(await handler(peer, body)), Claim.from_bytes(body)
            has = {each.epoch: from_bytes(each.covered) for each in claim.held}.get(grant.epoch, 0)
            wanted = list(numbers(_HALF & ~has))[: claim.wanted]
            half = to_bytes(_HALF)
            standings = tuple(
                each.model_copy(update={"missing": tuple(half for _ in each.missing)}) for each in grant.standings
            )
            granted = to_bytes(sum(1 << number for number in wanted))
            return grant.model_copy(update={"granted": granted, "standings": standings}).to_bytes()

        await super().serve_requests(kind, some if kind == CLAIM_KIND else handler, *limits)


def busy_keeper(given: Given) -> Given:
    return given | {"transport": BusyKeeper(given["transport"], given["signer"])}
