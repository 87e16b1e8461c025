"""Evaluates the whole model by passes through its stages, which do them when they have nothing else to do.

When an evaluation is due, one of the trainers takes it on: who comes first in an order that nobody can choose. It has
time until the next one is due; so long the stages keep the parameters.
"""

from collections.abc import Callable, Iterable, Mapping

import structlog

from dht.border import Border
from dht.interfaces import Transport
from peer.data.asking import Evaluate
from peer.data.dataset import Dataset
from peer.swarm.client import StageClient
from peer.swarm.passes import GivenUp, Passes
from peer.swarm.stage import evaluated_epoch
from protocols.identity import PeerId
from protocols.manifest import Manifest

LOOK_SECONDS = 0.5

log = structlog.get_logger()


class Evaluator:
    def __init__(
        self,
        transport: Transport,
        manifest: Manifest,
        dataset: Dataset,
        client: StageClient,
        *,
        epoch: Callable[[], int],
        peers: Callable[[], Mapping[int, Iterable[PeerId]]],
        evaluator: Callable[[int], PeerId | None],
        evaluate: Evaluate,
        note: Callable[[int, dict[str, float]], None],
        border: Border,
    ) -> None:
        """`epoch`: that all stages have come to; `peers`: by stage, who serves it; `evaluator`: whose an epoch is.

        `note` takes the epoch that was evaluated, and the metrics.
        """
        self._transport, self._manifest, self._dataset, self._client = transport, manifest, dataset, client
        self._epoch, self._peers, self._evaluator = epoch, peers, evaluator
        self._evaluate, self._note, self._border = evaluate, note, border

    async def run(self) -> None:
        """Until cancelled."""
        last: int | None = None
        while True:
            due = self._due()
            if due is not None and due != last and self._evaluator(due) == self._transport.peer_id:
                last = due
                async with self._border.around("evaluating the model"):
                    await self._try(due)
            else:
                await self._transport.clock.sleep(LOOK_SECONDS)

    def _due(self) -> int | None:
        return evaluated_epoch(self._manifest, self._epoch())

    async def _try(self, epoch: int) -> None:
        passes = Passes(self._transport, self._manifest, self._client, self._peers, epoch, lambda: self._due() != epoch)
        try:
            metrics = await self._evaluate(self._dataset, passes.outputs, self._manifest.evaluation.samples)
        except GivenUp as why:
            log.info("an evaluation is given up", epoch=epoch, reason=str(why))
            return
        log.info("evaluated", epoch=epoch, **metrics)
        self._note(epoch, metrics)
