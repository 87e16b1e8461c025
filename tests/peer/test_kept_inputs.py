"""Who has kept a forward pass is not sent its inputs again; what was kept, and is no more, costs nobody an epoch."""

from collections import Counter
from typing import Any

import numpy as np
import pytest

from peer.models.stages import join
from peer.swarm.kept_passes import KeptPasses, Passage
from peer.swarm.server import StageServer
from protocols.identity import PeerId
from protocols.swarm.messages import Delivery
from tests.peer.pipeline_swarm import PipelineSwarm, pipeline, simulate
from tests.peer.test_pipeline import in_one_process

MANIFEST = pipeline(epochs=5)


@pytest.fixture
def backward_passes(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[bool, str]]:
    """Of other peers' trainers, on all stages but the last: whether they came without inputs, and what was answered."""
    came: Counter[tuple[bool, str]] = Counter()
    handle, last = StageServer.handle, MANIFEST.training.stages - 1  # type: ignore[union-attr]

    async def counted(self: StageServer, trainer: PeerId, delivery: Delivery, payloads: Any) -> Any:
        answer, payload = await handle(self, trainer, delivery, payloads)
        work = delivery.work
        if work.task == "backward" and work.stage != last and trainer != self._transport.peer_id:
            came[delivery.kept is not None, answer.outcome] += 1
        return answer, payload

    monkeypatch.setattr(StageServer, "handle", counted)
    return came


def train() -> None:
    """Four peers, one a stage, to the parameters of one process."""

    async def scenario(swarm: PipelineSwarm) -> np.ndarray:
        for number in range(4):
            await swarm.start(number, stage=number)
        await swarm.finish(within=300)
        return join(swarm.parameters())

    trained = simulate(scenario, MANIFEST)
    np.testing.assert_allclose(trained, in_one_process(MANIFEST)[-1].parameters, rtol=1e-4, atol=1e-5)


def test_backward_passes_come_without_the_inputs(backward_passes: Counter[tuple[bool, str]]) -> None:
    train()
    assert backward_passes[True, "done"] > 0
    assert backward_passes[False, "done"] == 0


@pytest.mark.parametrize("notices", [True, False], ids=["at once", "when its turn comes"])
def test_what_is_not_kept_any_more_is_sent_again(
    notices: bool, backward_passes: Counter[tuple[bool, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    if notices:
        promised = set[Passage]()

        def pretend(self: KeptPasses, passage: Passage, forward: Any) -> None:
            promised.add(passage)

        def once(_self: KeptPasses, passage: Passage) -> bool:
            """As the forward pass is answered, and never again."""
            was = passage in promised
            promised.discard(passage)
            return was

        monkeypatch.setattr(KeptPasses, "keep", pretend)
        monkeypatch.setattr(KeptPasses, "__contains__", once)
    else:
        monkeypatch.setattr(KeptPasses, "take", lambda _self, _passage: None)
    train()
    assert backward_passes[True, "done"] == 0
    assert backward_passes[True, "forgotten"] == backward_passes[False, "done"] > 0
