"""What a trainer of a pipeline may order, and a keeper of its board keep back."""

from collections.abc import Awaitable, Callable
from typing import Any

import torch
from torch import Tensor

from dht.interfaces import RequestHandler
from peer.data.dataset import Dataset, Predict
from peer.misbehaviour.lying_transport import LyingTransport
from peer.swarm.keeper import CLAIM_KIND
from protocols.sampling import Indices
from protocols.swarm.messages import Grant

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


class IdleKeeper(LyingTransport):
    """Has nothing to do for whoever claims microbatches, and says that nothing is missing."""

    async def serve_requests(self, kind: str, handler: RequestHandler, *limits: int) -> None:
        async def nothing(_peer: Any, _claim: bytes) -> bytes:
            return Grant(epoch=0, granted=b"", standings=()).to_bytes()

        await super().serve_requests(kind, nothing if kind == CLAIM_KIND else handler, *limits)


def idle_keeper(given: Given) -> Given:
    return given | {"transport": IdleKeeper(given["transport"], given["signer"])}
